// SPDX-License-Identifier: Apache-2.0
// Matrix products for critic_kernel.cpp: tiles that stay in registers, in one of three formats.
//
// A product is c = base + factor * (a b). The left operand is read as it lies, element by element,
// each 32 bits wide; the right operand is packed into panels first. Matrices are row-major.
//
//   Float32   an element is a float.
//   BFloat16  (AVX-512 BF16) an element is a pair of neighbours along the summed dimension; sums are
//             float32.
//   Float16   (AVX-512 FP16) a left element is one number twice, a right one two neighbouring
//             columns; sums of kChunk products are float16, the rest of the sum is float32.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

// Intrinsics of the processor, where it has them; vectors of the compiler alone elsewhere (arm64), and
// with RLIF_NO_INTRINSICS, by which that path is tested on any machine.
#if defined(__AVX512F__) && !defined(RLIF_NO_INTRINSICS)
#define RLIF_AVX512
#include <immintrin.h>
#if defined(__AVX512BF16__)
#define RLIF_BFLOAT16
#endif
#if defined(__AVX512FP16__)
#define RLIF_FLOAT16
#endif
#endif

// Inlined into more code, a tile no longer fits the registers.
#define RLIF_OWN_CODE __attribute__((noinline))

namespace {

// A tile's sums, a row of the right operand and one number of the left one fill the registers and do
// not exceed them.
#if defined(RLIF_AVX512)
constexpr int kLanes = 16, kVectors = 4;  // 32 registers of 16 floats
#elif defined(__AVX__)
constexpr int kLanes = 8, kVectors = 2;  // 16 registers of 8
#elif defined(__aarch64__)
constexpr int kLanes = 4, kVectors = 4;  // 32 registers of 4
#else
constexpr int kLanes = 4, kVectors = 2;  // 16 registers of 4
#endif
constexpr int kRows = 6;               // rows of a tile
constexpr int kStep = kLanes * kVectors;  // floats of a panel that belong to one summed element
typedef float Vec __attribute__((vector_size(kLanes * 4), aligned(4)));

inline Vec load(const float* from) { return *reinterpret_cast<const Vec*>(from); }
inline void store(float* to, Vec value) { *reinterpret_cast<Vec*>(to) = value; }
inline Vec all(float value) { return Vec{} + value; }
inline float total(Vec value) {
  float sum = 0;
  for (int lane = 0; lane < kLanes; lane++) sum += value[lane];
  return sum;
}

// A column of a matrix: kLanes numbers that lie `stride` apart.
inline Vec column(const float* from, long stride) {
#ifdef RLIF_AVX512
  const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i at = _mm512_mullo_epi32(lane, _mm512_set1_epi32((int)stride));
  return (Vec)_mm512_i32gather_ps(at, from, 4);
#else
  Vec found;
  for (int lane = 0; lane < kLanes; lane++) found[lane] = from[lane * stride];
  return found;
#endif
}

inline long up(long n, long multiple) { return (n + multiple - 1) / multiple * multiple; }

struct Float32 {
  using First = Float32;
  static constexpr int kPanel = kStep;        // columns of a panel
  static constexpr bool kScaled = false;      // must gradients be kept small and far from zero?
  static constexpr bool kKeepsLeft = false;   // is the left form the same for rows and columns?
  static long elements(long K) { return K; }  // of K summed numbers

  // Left form of x [rows, C] (stride `ld`), summed along the columns; `to` is scratch.
  static const float* left(long, long, const float* x, long, float*) { return x; }
  static long left_stride(long, long ld) { return ld; }
  // Left form of the transpose of x [R, C]: summed along the rows.
  static const float* left_transposed(long, long, const float* x, long, float*) { return x; }
  static long transposed_stride(long, long ld) { return ld; }

  // Rows first .. first + rows - 1 of the right operand [K, N], from b (stride `ld`).
  static void pack(long first, long rows, long K, long N, const float* b, long ld, float* panels) {
    for (long n = 0; n < N; n += kPanel, panels += K * kStep) {
      const long width = std::min<long>(kPanel, N - n);
      for (long r = 0; r < rows; r++) {
        float* to = panels + (first + r) * kStep;
        std::memcpy(to, b + r * ld + n, width * 4);
        std::memset(to + width, 0, (kPanel - width) * 4);
      }
    }
  }
  // The right operand [K, N] from its transpose w [N, K].
  static void pack_transposed(long K, long N, const float* w, float* panels) {
    for (long n = 0; n < N; n += kPanel, panels += K * kStep) {
      const long width = std::min<long>(kPanel, N - n);
      long j = 0;
      for (; j + kLanes <= width; j += kLanes)
        for (long k = 0; k < K; k++) store(panels + k * kStep + j, column(w + (n + j) * K + k, K));
      for (; j < kPanel; j++)
        for (long k = 0; k < K; k++)
          panels[k * kStep + j] = j < width ? w[(n + j) * K + k] : 0.0f;
    }
  }
  // c [M, kPanel] (stride `ldc`) = base + factor * a b; a(i, k) = a[i * rows + k * columns]. The rows
  // of base lie `stride` apart.
  template <int M>
  RLIF_OWN_CODE static void tile(long K, const float* a, long rows, long columns, const float* b, float* c,
                   long ldc, const float* base, long stride, float factor) {
    Vec sum[M][kVectors] = {};
    for (long k = 0; k < K; k++) {
      Vec right[kVectors];
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; j++) right[j] = load(b + k * kStep + j * kLanes);
#pragma GCC unroll 8
      for (int i = 0; i < M; i++) {
        const float left = a[i * rows + k * columns];
#pragma GCC unroll 8
        for (int j = 0; j < kVectors; j++) sum[i][j] += left * right[j];
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < M; i++)
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; j++)
        store(c + i * ldc + j * kLanes, factor * sum[i][j] + load(base + i * stride + j * kLanes));
  }
};

#ifdef RLIF_BFLOAT16
struct BFloat16 {
  using First = BFloat16;
  static constexpr int kPanel = kStep;
  static constexpr bool kScaled = false, kKeepsLeft = false;
  static long elements(long K) { return (K + 1) / 2; }

  static uint32_t rounded(float value) {  // to the nearest bfloat16, kept in the upper half
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return bits + 0x7fffu + ((bits >> 16) & 1u);
  }
  static float pair(float first, float second) {
    const uint32_t bits = (rounded(first) >> 16) | (rounded(second) & 0xffff0000u);
    float result;
    std::memcpy(&result, &bits, 4);
    return result;
  }
  static const float* left(long rows, long C, const float* x, long ld, float* to) {
    float* at = to;
    for (long r = 0; r < rows; r++, x += ld) {
      for (long c = 0; c + 1 < C; c += 2) *at++ = pair(x[c], x[c + 1]);
      if (C % 2) *at++ = pair(x[C - 1], 0.0f);
    }
    return to;
  }
  static long left_stride(long C, long) { return elements(C); }
  static long transposed_stride(long C, long) { return C; }
  static const float* left_transposed(long R, long C, const float* x, long ld, float* to) {
    float* at = to;
    for (long r = 0; r < R; r += 2, x += 2 * ld, at += C)
      for (long c = 0; c < C; c++) at[c] = pair(x[c], r + 1 < R ? x[ld + c] : 0.0f);
    return to;
  }
  // `first` is even.
  static void pack(long first, long rows, long K, long N, const float* b, long ld, float* panels) {
    for (long n = 0; n < N; n += kPanel, panels += elements(K) * kStep) {
      const long width = std::min<long>(kPanel, N - n);
      for (long r = 0; r < rows; r += 2) {
        const float *one = b + r * ld + n, *two = one + (r + 1 < rows ? ld : 0);
        const float keep = r + 1 < rows ? 1.0f : 0.0f;
        float* to = panels + (first + r) / 2 * kStep;
        for (long j = 0; j < width; j++) to[j] = pair(one[j], keep * two[j]);
        for (long j = width; j < kPanel; j++) to[j] = 0.0f;
      }
    }
  }
  static void pack_transposed(long K, long N, const float* w, float* panels) {
    for (long n = 0; n < N; n += kPanel, panels += elements(K) * kStep) {
      const long width = std::min<long>(kPanel, N - n);
      if (width < kPanel) std::memset(panels, 0, elements(K) * kStep * 4);
      for (long j = 0; j < width; j++) {
        const float* row = w + (n + j) * K;
        for (long k = 0; k < K; k += 2)
          panels[k / 2 * kStep + j] = pair(row[k], k + 1 < K ? row[k + 1] : 0.0f);
      }
    }
  }
  template <int M>
  RLIF_OWN_CODE static void tile(long K, const float* a, long rows, long columns, const float* b, float* c,
                   long ldc, const float* base, long stride, float factor) {
    __m512 sum[M][kVectors] = {};
    for (long k = 0; k < K; k++) {
      __m512bh right[kVectors];
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; j++) right[j] = (__m512bh)load(b + k * kStep + j * kLanes);
#pragma GCC unroll 8
      for (int i = 0; i < M; i++) {
        const __m512bh left = (__m512bh)_mm512_set1_ps(a[i * rows + k * columns]);
#pragma GCC unroll 8
        for (int j = 0; j < kVectors; j++) sum[i][j] = _mm512_dpbf16_ps(sum[i][j], left, right[j]);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < M; i++)
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; j++)
        store(c + i * ldc + j * kLanes,
              factor * (Vec)sum[i][j] + load(base + i * stride + j * kLanes));
  }
};
#endif

#ifdef RLIF_FLOAT16
struct Float16 {
  using First = Float32;  // what the robot senses may be larger than float16 can hold
  static constexpr int kPanel = 2 * kStep;
  static constexpr bool kScaled = true, kKeepsLeft = true;
  static constexpr long kChunk = 64;  // 64 products in float16 err about as one rounded to bfloat16
  static long elements(long K) { return K; }

  static __m256i halves(Vec value) { return (__m256i)_mm512_cvtxps_ph((__m512)value); }
  static void store_halves(_Float16* to, Vec value) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), halves(value));
  }
  static const float* left(long rows, long C, const float* x, long ld, float* to) {
    float* at = to;
    for (long r = 0; r < rows; r++, x += ld) {
      long c = 0;
      for (; c + kLanes <= C; c += kLanes, at += kLanes) {
        const __m512i bits = _mm512_cvtepu16_epi32(halves(load(x + c)));
        store(at, (Vec)_mm512_or_si512(bits, _mm512_slli_epi32(bits, 16)));
      }
      for (; c < C; c++) *at++ = twice(x[c]);
    }
    return to;
  }
  static float twice(float value) {
    const _Float16 both[2] = {(_Float16)value, (_Float16)value};
    float result;
    std::memcpy(&result, both, 4);
    return result;
  }
  static long left_stride(long C, long) { return C; }
  static long transposed_stride(long C, long) { return C; }
  static const float* left_transposed(long R, long C, const float* x, long ld, float* to) {
    return left(R, C, x, ld, to);
  }
  static void pack(long first, long rows, long K, long N, const float* b, long ld, float* panels) {
    for (long n = 0; n < N; n += kPanel, panels += K * kStep) {
      const long width = std::min<long>(kPanel, N - n);
      for (long r = 0; r < rows; r++)
        pack_row(width, b + r * ld + n, panels + (first + r) * kStep);
    }
  }
  static void pack_row(long width, const float* from, float* to) {
    _Float16* half = reinterpret_cast<_Float16*>(to);
    long j = 0;
    for (; j + kLanes <= width; j += kLanes) store_halves(half + j, load(from + j));
    for (; j < kPanel; j++) half[j] = j < width ? (_Float16)from[j] : (_Float16)0;
  }
  static void pack_transposed(long K, long N, const float* w, float* panels) {
    for (long n = 0; n < N; n += kPanel, panels += K * kStep) {
      const long width = std::min<long>(kPanel, N - n);
      _Float16* half = reinterpret_cast<_Float16*>(panels);
      long j = 0;
      for (; j + kLanes <= width; j += kLanes)
        for (long k = 0; k < K; k++)
          store_halves(half + k * kPanel + j, column(w + (n + j) * K + k, K));
      for (; j < kPanel; j++)
        for (long k = 0; k < K; k++)
          half[k * kPanel + j] = j < width ? (_Float16)w[(n + j) * K + k] : (_Float16)0;
    }
  }
  template <int M>
  RLIF_OWN_CODE static void tile(long K, const float* a, long rows, long columns, const float* b, float* c,
                   long ldc, const float* base, long stride, float factor) {
    alignas(64) float sums[M][kPanel];
    for (int i = 0; i < M; i++)
      for (int j = 0; j < kPanel; j += kLanes) store(sums[i] + j, Vec{});
    for (long start = 0; start < K; start += kChunk)
      chunk<M>(start, std::min(K, start + kChunk), a, rows, columns, b, sums);
    for (int i = 0; i < M; i++)
      for (int j = 0; j < kPanel; j += kLanes)
        store(c + i * ldc + j, factor * load(sums[i] + j) + load(base + i * stride + j));
  }
  template <int M>
  RLIF_OWN_CODE static void chunk(long from, long to, const float* a, long rows, long columns, const float* b,
                    float (&sums)[M][kPanel]) {
    __m512h sum[M][kVectors] = {};
    for (long k = from; k < to; k++) {
      __m512h right[kVectors];
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; j++) right[j] = (__m512h)load(b + k * kStep + j * kLanes);
#pragma GCC unroll 8
      for (int i = 0; i < M; i++) {
        const __m512h left = (__m512h)_mm512_set1_ps(a[i * rows + k * columns]);
#pragma GCC unroll 8
        for (int j = 0; j < kVectors; j++) sum[i][j] = _mm512_fmadd_ph(left, right[j], sum[i][j]);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < M; i++)
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; j++) {
        const __m512i bits = (__m512i)sum[i][j];
        const auto low = (__m256h)_mm512_castsi512_si256(bits);
        const auto high = (__m256h)_mm512_extracti64x4_epi64(bits, 1);
        float* at = sums[i] + 2 * j * kLanes;
        store(at, load(at) + (Vec)_mm512_cvtxph_ps(low));
        store(at + kLanes, load(at + kLanes) + (Vec)_mm512_cvtxph_ps(high));
      }
  }
};
#endif

template <class F>
void tile_of(long m, long K, const float* a, long rows, long columns, const float* b, float* c,
             long ldc, const float* base, long stride, float factor) {
  switch (m) {
    case 1: return F::template tile<1>(K, a, rows, columns, b, c, ldc, base, stride, factor);
    case 2: return F::template tile<2>(K, a, rows, columns, b, c, ldc, base, stride, factor);
    case 3: return F::template tile<3>(K, a, rows, columns, b, c, ldc, base, stride, factor);
    case 4: return F::template tile<4>(K, a, rows, columns, b, c, ldc, base, stride, factor);
    case 5: return F::template tile<5>(K, a, rows, columns, b, c, ldc, base, stride, factor);
    default: return F::template tile<kRows>(K, a, rows, columns, b, c, ldc, base, stride, factor);
  }
}

// c [M, N] (stride `ldc`) = base + factor * a b, b in panels; K counts elements. The rows of base lie
// `stride` apart: 0 for a bias, `ldc` to add to c itself, null for none.
template <class F>
void multiply(long M, long N, long K, const float* a, long rows, long columns, const float* panels,
              float* c, long ldc, const float* base, long stride, float factor = 1.0f) {
  static const float zero[F::kPanel] = {};
  alignas(64) float edge[kRows * F::kPanel], padded[kRows * F::kPanel];
  for (long m = 0; m < M; m += kRows) {
    const long height = std::min<long>(kRows, M - m);
    const float* b = panels;
    for (long n = 0; n < N; n += F::kPanel, b += K * kStep) {
      const long width = std::min<long>(F::kPanel, N - n);
      const float* from = base ? base + m * stride + n : zero;
      const long step = base ? stride : 0;
      if (width == F::kPanel) {
        tile_of<F>(height, K, a + m * rows, rows, columns, b, c + m * ldc + n, ldc, from, step,
                   factor);
        continue;
      }
      for (long i = 0; i < height; i++) std::memcpy(padded + i * F::kPanel, from + i * step, width * 4);
      tile_of<F>(height, K, a + m * rows, rows, columns, b, edge, F::kPanel, padded, F::kPanel,
                 factor);
      for (long i = 0; i < height; i++)
        std::memcpy(c + (m + i) * ldc + n, edge + i * F::kPanel, width * 4);
    }
  }
}

// Floats that the panels of a right operand [K, N] take.
template <class F>
long panel_floats(long K, long N) {
  return F::elements(K) * kStep * ((N + F::kPanel - 1) / F::kPanel);
}

}  // namespace
