// Stands in for https://miniaud.io, which Ollama keeps in a vendor folder (those are not part of Go module archives) and
// Debian 12 does not package. llama.cpp needs it only to decode audio input: with this header every decoding fails.
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef int ma_result;
typedef uint64_t ma_uint64;
enum { MA_SUCCESS = 0, MA_ERROR = -1 };
typedef enum { ma_format_f32 = 5 } ma_format;
typedef struct { ma_format format; } ma_decoder_config;
typedef struct { int none; } ma_decoder;

static inline ma_decoder_config ma_decoder_config_init(ma_format format, uint32_t channels, uint32_t rate) {
    (void)channels, (void)rate;
    ma_decoder_config config = {format};
    return config;
}
static inline ma_result ma_decoder_init_memory(const void *data, size_t size, const ma_decoder_config *config, ma_decoder *decoder) {
    (void)data, (void)size, (void)config, (void)decoder;
    return MA_ERROR;
}
static inline ma_result ma_decoder_get_length_in_pcm_frames(ma_decoder *decoder, ma_uint64 *length) {
    (void)decoder;
    *length = 0;
    return MA_ERROR;
}
static inline ma_result ma_decoder_read_pcm_frames(ma_decoder *decoder, void *frames, ma_uint64 count, ma_uint64 *read) {
    (void)decoder, (void)frames, (void)count, (void)read;
    return MA_ERROR;
}
static inline ma_result ma_decoder_uninit(ma_decoder *decoder) {
    (void)decoder;
    return MA_SUCCESS;
}
