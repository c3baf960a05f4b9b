// Matrix products for critic_kernel.cpp: tiles that stay in registers, in float32 or bfloat16.
//
// Matrices are row-major. Low precision: two neighbouring bfloat16 values along the summed
// dimension share one 32-bit element ("pair"), so that both precisions have one loop.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace {

#ifdef __AVX512F__
constexpr int kLanes = 16, kVectors = 4;
#else
constexpr int kLanes = 8, kVectors = 2;
#endif
constexpr int kRows = 6, kPanel = kLanes * kVectors;  // a tile of the result: kRows x kPanel
typedef float Vec __attribute__((vector_size(kLanes * 4), aligned(4)));

long up(long n, long multiple) { return (n + multiple - 1) / multiple * multiple; }

// Memory of one thread, kept between calls.
struct Arena {
  std::vector<float> memory;
  size_t used = 0;
  void reset(size_t floats) {
    if (memory.size() < floats + 64) memory.resize(floats + 64);
    used = (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64 / 4;
  }
  float* take(long floats) {
    float* start = memory.data() + used;
    used += up(floats, 16);
    return start;
  }
};
thread_local Arena arena;

inline uint32_t rounded(float value) {  // to the nearest bfloat16, kept in the upper half
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits + 0x7fffu + ((bits >> 16) & 1u);
}
inline float pair(float first, float second) {
  uint32_t bits = (rounded(first) >> 16) | (rounded(second) & 0xffff0000u);
  float result;
  std::memcpy(&result, &bits, 4);
  return result;
}

// One tile: c = bias + a b; a(i, k) = a[i * rows + k * columns], b in a panel.
template <bool LOW, int M>
void tile(long K, const float* a, long rows, long columns, const float* b, float* c, long ldc,
          const float* bias) {
  Vec sum[M][kVectors];
#pragma GCC unroll 8
  for (int i = 0; i < M; i++)
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; j++)
      sum[i][j] = bias ? *reinterpret_cast<const Vec*>(bias + j * kLanes) : Vec{};
  for (long k = 0; k < K; k++) {
    Vec right[kVectors];
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; j++)
      right[j] = *reinterpret_cast<const Vec*>(b + k * kPanel + j * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < M; i++) {
      const float left = a[i * rows + k * columns];
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; j++) {
#ifdef __AVX512BF16__
        if constexpr (LOW) {
          int32_t bits;
          std::memcpy(&bits, &left, 4);
          sum[i][j] = (Vec)_mm512_dpbf16_ps((__m512)sum[i][j], (__m512bh)_mm512_set1_epi32(bits),
                                            (__m512bh)right[j]);
          continue;
        }
#endif
        sum[i][j] += left * right[j];
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < M; i++)
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; j++)
      *reinterpret_cast<Vec*>(c + i * ldc + j * kLanes) = sum[i][j];
}

template <bool LOW>
void tile_of(int m, long K, const float* a, long rows, long columns, const float* b, float* c,
             long ldc, const float* bias) {
  switch (m) {
    case 1: return tile<LOW, 1>(K, a, rows, columns, b, c, ldc, bias);
    case 2: return tile<LOW, 2>(K, a, rows, columns, b, c, ldc, bias);
    case 3: return tile<LOW, 3>(K, a, rows, columns, b, c, ldc, bias);
    case 4: return tile<LOW, 4>(K, a, rows, columns, b, c, ldc, bias);
    case 5: return tile<LOW, 5>(K, a, rows, columns, b, c, ldc, bias);
    default: return tile<LOW, 6>(K, a, rows, columns, b, c, ldc, bias);
  }
}

// c [M, N] = bias [N] + a b, with b packed into panels; K counts elements (pairs if LOW).
template <bool LOW>
void multiply(long M, long N, long K, const float* a, long rows, long columns, const float* panels,
              float* c, const float* bias) {
  float edge[kRows * kPanel], padded[kPanel];
  for (long n = 0; n < N; n += kPanel, panels += K * kPanel) {
    const bool whole = n + kPanel <= N;
    const float* offset = bias ? bias + n : nullptr;
    if (bias && !whole) {
      std::memset(padded, 0, sizeof padded);
      std::memcpy(padded, bias + n, (N - n) * 4);
      offset = padded;
    }
    for (long m = 0; m < M; m += kRows) {
      const int height = (int)std::min<long>(kRows, M - m);
      if (whole) {
        tile_of<LOW>(height, K, a + m * rows, rows, columns, panels, c + m * N + n, N, offset);
      } else {
        tile_of<LOW>(height, K, a + m * rows, rows, columns, panels, edge, kPanel, offset);
        for (int i = 0; i < height; i++)
          std::memcpy(c + (m + i) * N + n, edge + i * kPanel, (N - n) * 4);
      }
    }
  }
}

template <bool LOW> long elements(long K) { return LOW ? (K + 1) / 2 : K; }
template <bool LOW> long packed(long K, long N) { return elements<LOW>(K) * up(N, kPanel); }

// Panels of b [K, N], b(k, n) = b[k * N + n]; what lies beyond N or K is zero.
template <bool LOW>
void pack(long K, long N, const float* __restrict b, float* __restrict out) {
  for (long n = 0; n < N; n += kPanel) {
    const long width = std::min<long>(kPanel, N - n);
    for (long k = 0; k < K; k += LOW ? 2 : 1, out += kPanel) {
      const float *one = b + k * N + n, *two = one + (k + 1 < K ? N : 0);
      const float keep = k + 1 < K ? 1.0f : 0.0f;
      for (long j = 0; j < width; j++) out[j] = LOW ? pair(one[j], keep * two[j]) : one[j];
      for (long j = width; j < kPanel; j++) out[j] = 0.0f;
    }
  }
}

// Panels of the transpose of w [N, K], elements as they are.
void pack_transposed(long K, long N, const float* __restrict w, float* __restrict out) {
  for (long n = 0; n < N; n += kPanel, out += K * kPanel) {
    const long width = std::min<long>(kPanel, N - n);
    if (width < kPanel) std::memset(out, 0, K * kPanel * 4);
    for (long block = 0; block < K; block += 16)
      for (long j = 0; j < width; j++) {
        const float* row = w + (n + j) * K;
        for (long k = block; k < std::min(K, block + 16); k++) out[k * kPanel + j] = row[k];
      }
  }
}

// Pairs within the rows of x [R, C]: [R, (C + 1) / 2].
void pair_rows(long R, long C, const float* __restrict x, float* __restrict out) {
  for (long r = 0; r < R; r++, x += C) {
    for (long c = 0; c + 1 < C; c += 2) *out++ = pair(x[c], x[c + 1]);
    if (C % 2) *out++ = pair(x[C - 1], 0.0f);
  }
}

// Pairs across the rows of x [R, C]: [(R + 1) / 2, C].
void pair_columns(long R, long C, const float* __restrict x, float* __restrict out) {
  for (long r = 0; r < R; r += 2, x += 2 * C, out += C)
    for (long c = 0; c < C; c++) out[c] = pair(x[c], r + 1 < R ? x[C + c] : 0.0f);
}

}  // namespace
