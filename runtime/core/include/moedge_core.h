/* The C interface of the core: experts paged from flash into a byte budget and computed there, and the dense layers
 * that lie between them, and the vision tower before them.
 *
 * docs/expert-core.md describes records, threads and guarantees. No function throws; those that can fail return a
 * status and fill `error`. A core belongs to one caller at a time for compute, pin, set_budget, preload and
 * set_counts; statistics and counts may be read from any thread at any time. Dense layers and a vision tower belong to
 * one caller at a time as well, but while they are loaded.
 */
#ifndef MOEDGE_CORE_H
#define MOEDGE_CORE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MOEDGE_CORE_ABI 7
/* Layers that a token may be told of before it reaches them. */
#define MOEDGE_LAYERS_AHEAD 3

typedef struct moedge_core moedge_core;
typedef struct moedge_dense moedge_dense;
typedef struct moedge_vision moedge_vision;

typedef enum {
  MOEDGE_OK = 0,
  MOEDGE_BAD_OPTION = 1,       /* An option is out of range; `message` names it, its value and what is allowed. */
  MOEDGE_BUDGET_TOO_SMALL = 2, /* `message` holds the numbers; `value` is the least budget in bytes. */
  MOEDGE_EXPERT_DAMAGED = 3,   /* A record could not be read or its CRC-32C differs: layer, expert, offset are set. */
  MOEDGE_READ_TIMEOUT = 4,     /* A read made no progress for `read_timeout_ms`: layer, expert, offset are set. */
  MOEDGE_BAD_INPUT = 5,        /* Router logits or activations are not finite, or the layer does not exist. */
  MOEDGE_OUT_OF_MEMORY = 6,    /* `message` says how many bytes could not be had; with `os_error`, locked. */
  MOEDGE_FILE_UNUSABLE = 7     /* The file cannot be opened or has another size. */
} moedge_status;

typedef struct {
  int32_t status;   /* moedge_status */
  int32_t os_error; /* errno of the failing call, or 0 */
  uint32_t layer;   /* index of the layer among those with experts */
  uint32_t expert;
  uint64_t offset;   /* of the record in the file, bytes */
  uint64_t value;    /* see moedge_status */
  char message[256]; /* English, one line, without the layer, expert and offset */
} moedge_error;

typedef struct {
  uint32_t abi;     /* MOEDGE_CORE_ABI */
  uint32_t layers;  /* layers with experts, in the file's order */
  uint32_t experts; /* experts of a layer */
  uint32_t top_k;   /* experts of a token */
  uint32_t hidden_size;
  uint32_t intermediate_size;
  uint32_t bits;            /* 4, 8 or 32 */
  uint32_t block_size;      /* 32, 64 or 128; ignored at 32 bits */
  uint32_t symmetric;       /* 1: no zero points are stored */
  uint32_t threads;         /* threads that compute, the caller's included; 1 to 64 */
  uint32_t readers;         /* records of a prefill that are read at once; 1 to 64 */
  uint32_t max_tokens;      /* most tokens of one compute call */
  uint32_t direct;          /* 1: O_DIRECT, buffered where it is refused (see statistics); 0: buffered */
  uint32_t prefetch;        /* 1: read ahead into the next layer while a call leaves the flash idle */
  uint32_t read_timeout_ms; /* 0: wait for ever */
  uint32_t lock_memory;     /* 1: the slots are backed by pages at once and never swapped out */
  uint64_t record_bytes;    /* compared with what the shape gives */
  uint64_t budget_bytes;    /* of everything the core allocates; 0: room for all experts */
  const char* path;         /* experts.bin */
  const uint32_t* crc32c;   /* [layers * experts] of whole records; copied */
  const char* isa;          /* "scalar", "avx2", "avxvnni", "avx512vnni", "amx", "neondot", "neoni8mm"; NULL: best */
} moedge_core_options;

typedef struct {
  uint64_t calls;  /* compute calls that succeeded */
  uint64_t tokens; /* of these calls */
  uint64_t hits;   /* (call, expert) pairs whose record was in memory when the call began */
  uint64_t misses; /* ... that had to be read, or waited for */
  uint64_t reads;  /* records read completely */
  uint64_t read_bytes;
  uint64_t prefetch_used;   /* records read ahead and then computed with */
  uint64_t prefetch_unused; /* ... thrown away */
  uint64_t preloaded;       /* records that preload began to read */
  uint64_t preloaded_bytes; /* of these records */
  uint64_t preload_used;    /* of these, computed with or waited for by a call */
  uint64_t failed_reads;    /* I/O errors, short reads and checksum mismatches */
  uint64_t evictions;
  uint64_t flash_wait_ns;   /* of the calling thread: nothing to compute, a read outstanding */
  uint64_t compute_ns;      /* of the calling thread: everything else inside compute */
  uint64_t queue_depth_sum; /* reads outstanding when a read was added, itself included; divide by reads */
  uint64_t budget_bytes;    /* in force */
  uint64_t used_bytes;      /* of the budget: slots that have been written to once, and all buffers */
  uint32_t slots;           /* places for records, ring included */
  uint32_t ring_slots;      /* of these, for the scan of a prefill */
  uint32_t resident;        /* records in memory now */
  uint32_t pinned;          /* of these, pinned */
  uint32_t direct;          /* 1: reads are O_DIRECT */
  uint32_t huge_pages;      /* 1: the kernel took the advice to back the slots with huge pages */
} moedge_core_statistics;

typedef struct {
  uint32_t abi;    /* MOEDGE_CORE_ABI */
  uint32_t layers; /* of the decoder */
  uint32_t hidden_size;
  uint32_t heads; /* a multiple of kv_heads */
  uint32_t kv_heads;
  uint32_t head_dim;          /* even */
  uint32_t experts;           /* of a layer that has any: outputs of its router */
  uint32_t intermediate_size; /* of the layers that have no experts; 0 if there is none */
  uint32_t vocabulary;
  uint32_t bits;       /* 4, 8 or 32: of every product but the router's, which is float32, and the head's */
  uint32_t block_size; /* 32, 64 or 128; ignored at 32 bits */
  uint32_t symmetric;  /* 1: no zero points are stored; ignored at 32 bits */
  uint32_t head_bits;
  uint32_t head_block_size;
  uint32_t head_symmetric;
  uint32_t biased;            /* 1: the products of the attention have a bias */
  uint32_t max_tokens;        /* most tokens of one call */
  uint32_t slots;             /* tokens that the cache has room for */
  uint32_t threads;           /* 1 to 64; ignored with a core */
  float epsilon;              /* of the RMS norms */
  const uint8_t* has_experts; /* [layers]: 1 if the layer has experts; copied */
  const char* isa;            /* as in moedge_core_options; ignored with a core */
} moedge_dense_options;

/* A matrix as com.microsoft.MatMulNBits has it; at 32 bits `weight` is float [rows, inputs] and the rest NULL. */
typedef struct {
  const void* weight;        /* uint8 [rows, ceil(inputs / block_size), block_size * bits / 8] */
  const float* scale;        /* [rows, ceil(inputs / block_size)], each of them a float16 widened */
  const uint8_t* zero_point; /* [rows, ceil(blocks * bits / 8)]; NULL if symmetric */
  const float* bias;         /* [rows]; NULL without */
} moedge_matrix;

/* The weights of a layer; what it does not have is all NULL. */
typedef struct {
  const float* input_norm;   /* [hidden_size] */
  const float* query_norm;   /* [head_dim] */
  const float* key_norm;     /* [head_dim] */
  const float* post_norm;    /* [hidden_size] */
  const float* next_norm;    /* [hidden_size], post_norm of the next layer, if both have experts */
  moedge_matrix qkv;         /* queries, keys, values: [(heads + 2 * kv_heads) * head_dim, hidden_size] */
  moedge_matrix output;      /* [hidden_size, heads * head_dim] */
  moedge_matrix router;      /* float32 [experts, hidden_size] */
  moedge_matrix next_router; /* [experts, hidden_size], of the next layer, if both have experts */
  moedge_matrix gate_up;     /* [2 * intermediate_size, hidden_size] */
  moedge_matrix down;        /* [hidden_size, intermediate_size] */
} moedge_dense_weights;

/* One layer on some tokens. Arrays are float32 and may not overlap, but `residual` may be `hidden`. */
typedef struct {
  uint32_t layer;
  uint32_t tokens; /* 1 to max_tokens */
  uint32_t past;   /* tokens in the cache before the call */
  uint32_t reserved;
  const float* hidden; /* [tokens, hidden_size] */
  const float* cos;    /* [tokens, head_dim / 2], and `sin` alike: rotary embedding at the tokens' positions */
  const float* sin;
  float* keys;               /* [kv_heads, slots, head_dim]: those of the tokens are written behind the past ones */
  float* values;             /* likewise */
  float* residual;           /* [tokens, hidden_size]: after attention, or after the MLP of a layer without experts */
  float* moe_input;          /* [tokens, hidden_size]: the residual after its norm; if the layer has experts */
  float* router_logits;      /* [tokens, experts]; if the layer has experts */
  float* next_router_logits; /* [MOEDGE_LAYERS_AHEAD, experts], or NULL: of the next layers' routers on the last token's
                                residual, as far as they and this layer have experts; the other rows are left alone */
} moedge_dense_call;

typedef struct {
  uint32_t abi;    /* MOEDGE_CORE_ABI */
  uint32_t blocks; /* of the tower */
  uint32_t hidden_size;
  uint32_t heads; /* hidden_size / heads is even */
  uint32_t intermediate_size;
  uint32_t patch_values; /* of the pixels of a patch */
  uint32_t positions;    /* learned position embeddings */
  uint32_t merge;        /* patches that become an image token, next to each other in their order */
  uint32_t features;     /* values of an image token */
  uint32_t taps;         /* mergers of what blocks give; one more is that of the last block */
  uint32_t gelu_tanh;    /* 1: the blocks' GELU is the approximation with tanh; the mergers' never is */
  uint32_t bits;         /* 4, 8 or 32 */
  uint32_t block_size;   /* 32, 64 or 128; ignored at 32 bits */
  uint32_t symmetric;    /* 1: no zero points are stored; ignored at 32 bits */
  uint32_t resident;     /* 1: all weights stay; 0: a block takes the place of the last but one, mergers likewise */
  uint32_t threads;      /* 1 to 64; ignored with a core */
  float epsilon;         /* of the layer norms */
  const char* isa;       /* as in moedge_core_options; ignored with a core */
} moedge_vision_options;

/* The weights of a block; every matrix has a bias. */
typedef struct {
  const float* input_norm;      /* [hidden_size] */
  const float* input_norm_bias; /* [hidden_size] */
  const float* post_norm;       /* [hidden_size] */
  const float* post_norm_bias;  /* [hidden_size] */
  moedge_matrix qkv;            /* queries, keys, values: [3 * hidden_size, hidden_size] */
  moedge_matrix output;         /* [hidden_size, hidden_size] */
  moedge_matrix up;             /* [intermediate_size, hidden_size] */
  moedge_matrix down;           /* [hidden_size, intermediate_size] */
} moedge_vision_block_weights;

/* The weights of a merger, M = merge * hidden_size; every matrix has a bias. */
typedef struct {
  const float* norm;      /* [M] of merged patches; of the last merger [hidden_size], of each patch */
  const float* norm_bias; /* likewise */
  moedge_matrix up;       /* [M, M] */
  moedge_matrix down;     /* [features, M] */
} moedge_vision_merger_weights;

/* A picture that goes through the tower. Arrays are the caller's and may not overlap. */
typedef struct {
  uint32_t patches; /* frame by frame, as many in each; a frame sees itself alone */
  uint32_t frames;
  float* hidden;    /* [patches, hidden_size]: written by moedge_vision_embed, changed by each block */
  const float* cos; /* [patches, hidden_size / heads / 2], and `sin` alike: rotary embedding at the patches' places */
  const float* sin;
  void* memory; /* moedge_vision_bytes says how much; on a multiple of 64 bytes; kept from call to call or not */
} moedge_vision_picture;

/* Open a core: allocates the budget's address space, starts its threads; reads nothing yet. */
moedge_status moedge_core_open(const moedge_core_options* options, moedge_core** core, moedge_error* error);

/* Stop all threads and free everything; waits for reads under way. NULL is allowed. */
void moedge_core_close(moedge_core* core);

/* Weighted sum of each token's experts: softmax of the router's logits, the top_k largest renormalised to sum 1
 * (of equal logits the lower expert), SwiGLU experts, added in ascending order of expert.
 * The result does not depend on residency, budget, readers, threads or instruction set: it is the same bit by bit.
 *   layer          position among the layers with experts
 *   tokens         1 to max_tokens
 *   moe_input      float [tokens, hidden_size]
 *   router_logits  float [tokens, experts]
 *   next_router_logits   float [layers_ahead, experts] or NULL: a guess of the logits of the layers that follow,
 *                        for one token only. What it chooses is read while the flash is idle, until the next call,
 *                        the next layer's first. It never changes a result.
 *   layers_ahead   0 to MOEDGE_LAYERS_AHEAD; layers that do not exist are left alone
 *   result         float [tokens, hidden_size], overwritten; undefined after an error
 * Blocks. After an error the core can be called again. */
moedge_status moedge_core_compute(moedge_core* core, uint32_t layer, uint32_t tokens, const float* moe_input,
                                  const float* router_logits, const float* next_router_logits, uint32_t layers_ahead,
                                  float* result, moedge_error* error);

/* Keep exactly these experts in memory from the time they are first read; replaces the last set.
 *   keys           [count] of layer * experts + expert; the most important first: what does not fit is left out */
moedge_status moedge_core_pin(moedge_core* core, const uint32_t* keys, uint32_t count, moedge_error* error);

/* Change the budget; what no longer fits is dropped, pinned experts last. The old one stays in force on an error. */
moedge_status moedge_core_set_budget(moedge_core* core, uint64_t budget_bytes, moedge_error* error);

/* The flash is idle until the next call: start to read what the next calls will probably need, and return at once.
 * Pinned experts come first, then, into free places, those that were used most often and most recently, then, as far
 * as the ring goes, what a prefill of the first layer needs first. Only a pinned expert takes the place of another.
 * The next compute, set_budget or close ends it: reads under way are finished and used, no other is begun. A record
 * that cannot be read fails nothing; a compute that needs it reads it again. */
moedge_status moedge_core_preload(moedge_core* core, moedge_error* error);

/* How often each expert was chosen by a token: uint64 [layers * experts], since the core was opened. */
void moedge_core_counts(const moedge_core* core, uint64_t* counts);

/* Start from the counts of an earlier run: experts count as used in proportion, for preload and for what stays, and
 * moedge_core_counts goes on from here.
 *   counts         uint64 [layers * experts] */
void moedge_core_set_counts(moedge_core* core, const uint64_t* counts);

void moedge_core_get_statistics(const moedge_core* core, moedge_core_statistics* statistics);

/* Open dense layers: allocates their weights' memory and all buffers, accounted for by moedge_dense_bytes.
 *   core           computes with its threads and instruction set, which outlive it; NULL: threads of its own */
moedge_status moedge_dense_open(const moedge_dense_options* options, const moedge_core* core, moedge_dense** dense,
                                moedge_error* error);

/* Free everything. NULL is allowed. */
void moedge_dense_close(moedge_dense* dense);

/* Bring the weights of a layer, or the head's (norm [hidden_size], matrix [vocabulary, hidden_size]), into their
 * layout. Once each; different layers may be loaded by several threads at once. */
moedge_status moedge_dense_load_layer(moedge_dense* dense, uint32_t layer, const moedge_dense_weights* weights,
                                      moedge_error* error);
moedge_status moedge_dense_load_head(moedge_dense* dense, const float* norm, const moedge_matrix* matrix,
                                     moedge_error* error);

/* Compute a layer up to and including its router. A token's bits depend neither on threads and instruction set nor on
 * the tokens that are computed with it. Nothing is allocated. After an error the call may be made again. */
moedge_status moedge_dense_layer(moedge_dense* dense, const moedge_dense_call* call, moedge_error* error);

/* Final norm and head: hidden [hidden_size], logits [vocabulary]. */
moedge_status moedge_dense_head(moedge_dense* dense, const float* hidden, float* logits, moedge_error* error);

/* Bytes of the weights, and of the buffers. */
void moedge_dense_bytes(const moedge_dense* dense, uint64_t* weights, uint64_t* buffers);

/* Open a vision tower: allocates its weights' memory and the threads' buffers, accounted for by moedge_vision_bytes.
 *   core           computes with its threads and instruction set, which outlive it; NULL: threads of its own */
moedge_status moedge_vision_open(const moedge_vision_options* options, const moedge_core* core, moedge_vision** vision,
                                 moedge_error* error);

/* Free everything. NULL is allowed. */
void moedge_vision_close(moedge_vision* vision);

/* Bring the weights of the patches' product (matrix [hidden_size, patch_values] with a bias, positions [positions,
 * hidden_size]), of a block or of a merger into their layout. Once each, if they are resident; several threads may do
 * so at once, and while another block or merger is computed. */
moedge_status moedge_vision_load_patches(moedge_vision* vision, const moedge_matrix* matrix, const float* positions,
                                         moedge_error* error);
moedge_status moedge_vision_load_block(moedge_vision* vision, uint32_t block,
                                       const moedge_vision_block_weights* weights, moedge_error* error);
moedge_status moedge_vision_load_merger(moedge_vision* vision, uint32_t merger,
                                        const moedge_vision_merger_weights* weights, moedge_error* error);

/* Begin a picture; its bits depend neither on threads nor on instruction set, in none of these calls.
 *   pixels         float [patches, patch_values]
 *   corners        [patches, 4]: learned positions that each patch's is made of
 *   shares         [patches, 4]: what each of them counts */
moedge_status moedge_vision_embed(moedge_vision* vision, const moedge_vision_picture* picture, const float* pixels,
                                  const uint32_t* corners, const float* shares, moedge_error* error);

/* Compute one block. */
moedge_status moedge_vision_block(moedge_vision* vision, const moedge_vision_picture* picture, uint32_t block,
                                  moedge_error* error);

/* Features float [patches / merge, features] of what the blocks so far gave; the last merger is the tower's own. */
moedge_status moedge_vision_merge(moedge_vision* vision, const moedge_vision_picture* picture, uint32_t merger,
                                  float* features, moedge_error* error);

/* Bytes of the weights, of the buffers, and of the memory of a picture of so many patches. */
void moedge_vision_bytes(const moedge_vision* vision, uint32_t patches, uint64_t* weights, uint64_t* buffers,
                         uint64_t* memory);

/* Name of the instruction set in use; lives as long as the library. */
const char* moedge_core_isa(const moedge_core* core);

/* The same for the best instruction set of this processor, and whether this build and processor can use `isa`. */
const char* moedge_core_best_isa(void);
int moedge_core_has_isa(const char* isa);

#ifdef __cplusplus
}
#endif
#endif
