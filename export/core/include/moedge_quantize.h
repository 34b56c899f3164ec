/* C interface of the quantizing kernel. moedge_export/quantize_library.py mirrors it; a test compares the two. */
#ifndef MOEDGE_QUANTIZE_H
#define MOEDGE_QUANTIZE_H

#include <stdint.h>

#define MOEDGE_QUANTIZE_ABI 1

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
  MOEDGE_FLOAT32 = 0,
  MOEDGE_FLOAT16 = 1,
  MOEDGE_BFLOAT16 = 2,
} moedge_float_type;

/* A matrix [rows, inputs] and where its quantized form goes; a last block that is not full is padded with zeros. */
typedef struct {
  uint32_t type;       /* moedge_float_type */
  uint32_t bits;       /* 4 or 8 */
  uint32_t block_size; /* inputs of a block: 32, 64 or 128 */
  uint32_t symmetric;  /* 1: every zero point is 2^(bits-1) */
  uint64_t rows;       /* blocks never cross rows */
  uint64_t inputs;
  uint64_t row_stride; /* in elements, as input_stride; one of the two is 1 */
  uint64_t input_stride;
  const void* weights;
  uint8_t* weight; /* out: [rows, blocks * block_size * bits / 8]; two a byte at 4 bits, the first in the low nibble */
  uint16_t* scale; /* out: float16 [rows, blocks] */
  uint8_t* zero_point; /* out: [rows, blocks], not packed; unused if symmetric */
  const char* isa;     /* "baseline", "avx2" or "avx512f"; NULL: the fastest one of this processor */
} moedge_quantize_matrix;

/* Sums of squares over all weights. A weight that is infinite or not a number, or one that needs a scale beyond
 * float16, makes weight or error not finite. */
typedef struct {
  double weight;       /* of the weights */
  double error;        /* of their error */
  double error_absmax; /* of the error with plain round-to-nearest */
} moedge_quantize_sums;

/* MOEDGE_QUANTIZE_ABI of the library. */
uint32_t moedge_quantize_abi(void);

/* Quantizes a matrix on the calling thread; keeps no state, so any number of threads may call it. Every instruction set
 * and both orders in memory give the same bits.
 * Returns 0, or 1 if an argument has a value that is not listed above; nothing is written then. */
int moedge_quantize(const moedge_quantize_matrix* matrix, moedge_quantize_sums* sums);

/* Rounds count floats to float16 as the kernel rounds scales: to nearest, ties to even. Returns as above. */
int moedge_quantize_to_half(const float* values, uint16_t* halves, uint64_t count, const char* isa);

/* Whether this build and this processor have an instruction set. */
int moedge_quantize_has_isa(const char* isa);

#ifdef __cplusplus
}
#endif

#endif
