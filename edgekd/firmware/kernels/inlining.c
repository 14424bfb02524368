/* A function of its own has registers for its inner loop; what the loop calls has to be in it. */
#if defined(__GNUC__)
#define OWN_FUNCTION __attribute__((noinline))
#define IN_LOOP __attribute__((always_inline)) inline
#else
#define OWN_FUNCTION
#define IN_LOOP inline
#endif
