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

/* sum + a.low * b.high */
static inline int32_t low_high_mac(int32_t a, int32_t b, int32_t sum)
{
    __asm__("smlabt %0, %1, %2, %0" : "+r"(sum) : "r"(a), "r"(b));
    return sum;
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

/* a * b / 2^32, rounded */
static inline int32_t high_word(int32_t a, int32_t b)
{
    int32_t product;
    __asm__("smmulr %0, %1, %2" : "=r"(product) : "r"(a), "r"(b));
    return product;
}

static inline int8_t saturate_int8(int32_t x)
{
    int32_t bounded;
    __asm__("ssat %0, #8, %1" : "=r"(bounded) : "r"(x));
    return (int8_t)bounded;
}

/* Two adjacent words at an address that is a multiple of four. It is loaded where it stands, since
   compilers otherwise keep more words at hand than there are registers for. */
static inline void load_words(const void *from, int32_t *first, int32_t *second)
{
    int32_t low;
    int32_t high;
    __asm__ volatile("ldrd %0, %1, [%2]" : "=r"(low), "=r"(high) : "r"(from) : "memory");
    *first = low;
    *second = high;
}

#else

static inline void load_words(const void *from, int32_t *first, int32_t *second)
{
    int32_t words[2];
    memcpy(words, from, sizeof words);
    *first = words[0];
    *second = words[1];
}

static inline int32_t dual_mac(int32_t a, int32_t b, int32_t sum)
{
    const int32_t products = (int16_t)a * (int16_t)b + (a >> 16) * (b >> 16);
    return (int32_t)((uint32_t)sum + (uint32_t)products);
}

static inline int32_t low_high_mac(int32_t a, int32_t b, int32_t sum)
{
    return sum + (int16_t)a * (b >> 16);
}

static inline int32_t even_bytes(int32_t word)
{
    return (int32_t)(((uint32_t)(int8_t)(word >> 16) << 16) | (uint16_t)(int8_t)word);
}

static inline int32_t odd_bytes(int32_t word)
{
    return even_bytes(word >> 8);
}

static inline int32_t high_word(int32_t a, int32_t b)
{
    return (int32_t)(((int64_t)a * b + (INT64_C(1) << 31)) >> 32);
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

/* Four bytes at any address. */
static inline int32_t load_word(const int8_t *x)
{
    int32_t word;
    memcpy(&word, x, sizeof word);
    return word;
}
