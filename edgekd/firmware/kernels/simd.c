/* Instructions of Armv7E-M and later (Cortex-M4, M7, M33, M55), each as one function; plain C does
   the same elsewhere. A word is two signed halves, or four signed bytes; the lowest comes first. */

#if defined(__BYTE_ORDER__) && defined(__ORDER_BIG_ENDIAN__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#error "the packed weights are for little-endian cores"
#endif

#if defined(__ARM_FEATURE_DSP) && defined(__ARM_FEATURE_SIMD32) && defined(__GNUC__) \
    && defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
#define DSP_INSTRUCTIONS

/* sum + a.low * b.low + a.high * b.high, modulo 2^32 */
static inline int32_t dual_mac(int32_t a, int32_t b, int32_t sum)
{
    __asm__("smlad %0, %1, %2, %0" : "+r"(sum) : "r"(a), "r"(b));
    return sum;
}

/* Two signed values as the halves of a word. */
static inline int32_t halves(int32_t low, int32_t high)
{
    int32_t both;
    __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(both) : "r"(low), "r"(high));
    return both;
}

/* Both halves twice. */
static inline int32_t doubled_halves(int32_t word)
{
    int32_t twice;
    __asm__("sadd16 %0, %1, %1" : "=r"(twice) : "r"(word));
    return twice;
}

/* Bytes 0 and 2 as two halves. */
static inline int32_t even_bytes(int32_t word)
{
    int32_t halves;
    __asm__("sxtb16 %0, %1" : "=r"(halves) : "r"(word));
    return halves;
}

/* Bytes 1 and 3 as two halves. */
static inline int32_t odd_bytes(int32_t word)
{
    int32_t halves;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(halves) : "r"(word));
    return halves;
}

/* sum + a * b / 2^32, rounded */
static inline int32_t high_word_mac(int32_t a, int32_t b, int32_t sum)
{
    int32_t result;
    __asm__("smmlar %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}

/* x / 2^shift, rounded down; the shift is the lowest byte of the word. */
static inline int32_t shift_right(int32_t x, int32_t shift)
{
    int32_t shifted;
    __asm__("asr %0, %1, %2" : "=r"(shifted) : "r"(x), "r"(shift));
    return shifted;
}

static inline int8_t saturate_int8(int32_t x)
{
    int32_t bounded;
    __asm__("ssat %0, #8, %1" : "=r"(bounded) : "r"(x));
    return (int8_t)bounded;
}

/* Two adjacent words at an address that is a multiple of four. */
static inline void store_words(void *to, int32_t first, int32_t second)
{
    __asm__ volatile("strd %1, %2, [%0]" : : "r"(to), "r"(first), "r"(second) : "memory");
}

/* Three adjacent words, whose registers have to be in order. */
static inline void store_three(int32_t *to, int32_t first, int32_t second, int32_t third)
{
    register int32_t r3 __asm__("r3") = first;
    register int32_t r4 __asm__("r4") = second;
    register int32_t r5 __asm__("r5") = third;
    __asm__ volatile("stmia %0, {%1, %2, %3}" : : "r"(to), "r"(r3), "r"(r4), "r"(r5) : "memory");
}

#else

static inline void store_three(int32_t *to, int32_t first, int32_t second, int32_t third)
{
    to[0] = first;
    to[1] = second;
    to[2] = third;
}

static inline void store_words(void *to, int32_t first, int32_t second)
{
    const int32_t words[2] = {first, second};
    memcpy(to, words, sizeof words);
}

static inline int32_t halves(int32_t low, int32_t high)
{
    return (int32_t)((uint32_t)high << 16 | (uint16_t)low);
}

static inline int32_t doubled_halves(int32_t word)
{
    return halves(2 * (int16_t)word, 2 * (word >> 16));
}

static inline int32_t dual_mac(int32_t a, int32_t b, int32_t sum)
{
    const int32_t products = (int16_t)a * (int16_t)b + (a >> 16) * (b >> 16);
    return (int32_t)((uint32_t)sum + (uint32_t)products);
}

static inline int32_t even_bytes(int32_t word)
{
    return (int32_t)(((uint32_t)(int8_t)(word >> 16) << 16) | (uint16_t)(int8_t)word);
}

static inline int32_t odd_bytes(int32_t word)
{
    return even_bytes(word >> 8);
}

static inline int32_t high_word_mac(int32_t a, int32_t b, int32_t sum)
{
    return sum + (int32_t)(((int64_t)a * b + (INT64_C(1) << 31)) >> 32);
}

static inline int32_t shift_right(int32_t x, int32_t shift)
{
    return x >> (shift & 31);
}

static inline int8_t saturate_int8(int32_t x)
{
    return (int8_t)(x < -128 ? -128 : (x > 127 ? 127 : x));
}

#endif

/* Filter B's sum from 256 * B + A, which may have wrapped. */
static inline int32_t second_sum(int32_t both, int32_t first)
{
    return (int32_t)((uint32_t)both - (uint32_t)first) >> 8;
}

/* The same, doubled. */
static inline int32_t twice_second_sum(int32_t both, int32_t first)
{
    return (int32_t)((uint32_t)both - (uint32_t)first) >> 7;
}

/* Four bytes at any address. */
static inline int32_t load_word(const int8_t *x)
{
    int32_t word;
    memcpy(&word, x, sizeof word);
    return word;
}
