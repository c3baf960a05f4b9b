// SPDX-License-Identifier: Apache-2.0
// The critics' passes for the processor: matrix products, LayerNorm, ReLU, Adam and the moving
// average. A critic is one thread's from its inputs to its gradients. Of the batch, a chunk at a time
// goes forward and back, so that all that a critic needs stays in its core's second-level cache, and
// of the chunk, a few rows through all layers while they are in the first-level one. Threads begin with critics of their own, which
// their core's cache still holds, and take over what others have not begun: a robot's other nodes
// run on the same cores. critic_kernel.py compiles this and says when it is used; EnsembleCritic in
// networks.py is the same in PyTorch.

#include <omp.h>

#include <atomic>
#include <memory>
#include <type_traits>

#include "critic_products.h"

extern "C" {

// Sizes of the ensemble and where its parameters begin in the flat vector.
struct Shape {
  int64_t critics, inputs, layers, width, layer_norm, threads;
  const int64_t *weights, *biases, *gains, *shifts;  // [layers + 1], [layers + 1], [layers] x 2
};

// Vectors in the layout of the parameters; `decayed` may be null.
struct State {
  float *values, *gradients, *first, *second, *target;
  const float* decayed;
};

// Adam (AdamW where `decayed` is given), then target += tau (values - target). The rests are 1 - beta,
// formed in double: in float32 that of 0.999 would be 1.3e-5 off.
struct Rates {
  float eps, beta1, beta2, rest1, rest2, shrink, tau;
};

// [steps, ...] of each: all that the critic steps of one update need.
struct Batches {
  int64_t steps, rows, subset_size;
  const float *inputs, *next_inputs;  // [rows, inputs]: of this state and of the next
  const float *rewards, *discounts;   // [rows]: target = reward + discount * min(subset, highest)
  const int64_t* subset;              // [subset_size]: target critics
  const float *sizes, *corrections;   // one number: Adam's step size, and what scales its eps
  float highest;                      // that a next value may be; infinity: no limit
};
}

namespace {

constexpr float kNormEps = 1e-6f;

// The parameters of one critic.
struct Critic {
  const Shape& s;
  const float* flat;
  long index;
  long fan_in(long i) const { return i ? s.width : s.inputs; }
  long weight_size(long i) const { return fan_in(i) * (i == s.layers ? 1 : s.width); }
  long weight_at(long i) const { return s.weights[i] + index * weight_size(i); }
  long bias_at(long i) const { return s.biases[i] + index * (i == s.layers ? 1 : s.width); }
  long gain_at(long i) const { return s.gains[i] + index * s.width; }
  long shift_at(long i) const { return s.shifts[i] + index * s.width; }
};

// Calls part(begin, length) for each stretch of the flat vector that belongs to the critic.
template <class Part>
void each_part(const Critic& c, Part part) {
  for (long i = 0; i <= c.s.layers; i++) {
    part(c.weight_at(i), c.weight_size(i));
    part(c.bias_at(i), i == c.s.layers ? 1 : c.s.width);
  }
  for (long i = 0; c.s.layer_norm && i < c.s.layers; i++) {
    part(c.gain_at(i), c.s.width);
    part(c.shift_at(i), c.s.width);
  }
}

// Memory of one thread, kept between calls.
class Arena {
 public:
  void reset(size_t floats) {
    if (memory_.size() < floats + 64) memory_.resize(floats + 64);
    used_ = (64 - reinterpret_cast<uintptr_t>(memory_.data()) % 64) % 64 / 4;
  }
  float* take(long floats) {
    float* start = memory_.data() + used_;
    used_ += up(floats, 16);
    return start;
  }

 private:
  std::vector<float> memory_;
  size_t used_ = 0;
};
thread_local Arena arena;

// A layer's vectors with the padding of a row, and what the forward pass leaves for the way back.
struct Layer {
  float *bias, *gain, *shift;                    // [ld], zero beyond the width
  float *bias_sum, *gain_sum, *shift_sum;        // [ld]: their gradients
  float *x, *hat, *scale;                        // [rows, ld] the layer's input (not of the first),
                                                 // [rows, ld] normalised, [rows] 1 / deviation
  float *panels, *transposed, *d_panels;         // right operands: weights; their transpose;
                                                 // gradients of the products
};

// Rows of a chunk: about kChunkRows, and whole blocks.
constexpr long kChunkRows = 72;
inline long chunk_rows(long rows) {
  const long chunks = (rows + kChunkRows - 1) / kChunkRows;
  return up((rows + chunks - 1) / chunks, kRows);
}

// Working memory of one critic and a chunk of a batch, in format F.
template <class F>
struct Scratch {
  std::vector<Layer> layers;
  float *head, *head_sum, *mask;     // [ld]: last layer's weights, their gradients; 1 within width
  float *out, *left, *d, *next;      // [kRows, ...]: of one block of rows
  float *d_values, *columns;         // [rows], [rows, max(width, inputs)]
  long ld, rows;

  Scratch(const Shape& s, long batch) : rows(chunk_rows(batch)) {
    ld = up(s.width, kLanes);
    const long wide = std::max(ld, up(s.inputs, kLanes)), block = kRows * wide;
    const long panels = std::max(panel_floats<F>(wide, wide), panel_floats<Float32>(wide, wide));
    const long d_panels = std::max(panel_floats<F>(rows, ld), panel_floats<Float32>(rows, ld));
    const long layer = 6 * ld + 2 * rows * ld + up(rows, 16) + 2 * panels + d_panels;
    const long other = 3 * ld + 4 * block + rows + (rows + 1) * wide;
    arena.reset(s.layers * up(layer, 16) + other + 16 * (12 * s.layers + 12));
    for (long i = 0; i < s.layers; i++) {
      Layer l;
      for (float** vector : {&l.bias, &l.gain, &l.shift, &l.bias_sum, &l.gain_sum, &l.shift_sum})
        *vector = arena.take(ld);
      l.x = arena.take(rows * ld), l.hat = arena.take(rows * ld), l.scale = arena.take(rows);
      l.panels = arena.take(panels), l.transposed = arena.take(panels);
      l.d_panels = arena.take(d_panels);
      layers.push_back(l);
    }
    head = arena.take(ld), head_sum = arena.take(ld), mask = arena.take(ld);
    out = arena.take(block), left = arena.take(block), d = arena.take(block);
    next = arena.take(block), d_values = arena.take(rows);
    columns = arena.take((rows + 1) * wide);
    for (long j = 0; j < ld; j++) mask[j] = j < s.width ? 1.0f : 0.0f;
  }

  // Bring in the critic's parameters; `first_back`: the first layer whose transposed weights the way
  // back needs.
  void read(const Critic& c, long first_back);
};

// The format of layer i's products: what the robot senses may need another than the rest.
template <class F, class Call>
void in_format(long i, Call call) {
  if (i == 0)
    call(typename F::First{});
  else
    call(F{});
}

template <class F>
void Scratch<F>::read(const Critic& c, long first_back) {
  const long width = c.s.width;
  const auto padded = [&](float* to, long at) {
    std::memcpy(to, c.flat + at, width * 4);
    std::memset(to + width, 0, (ld - width) * 4);
  };
  padded(head, c.weight_at(c.s.layers));
  for (long i = 0; i < c.s.layers; i++) {
    const Layer& l = layers[i];
    padded(l.bias, c.bias_at(i));
    if (c.s.layer_norm) padded(l.gain, c.gain_at(i)), padded(l.shift, c.shift_at(i));
    in_format<F>(i, [&](auto f) {
      const long K = c.fan_in(i);
      f.pack(0, K, K, width, c.flat + c.weight_at(i), width, l.panels);
      if (i >= first_back) f.pack_transposed(width, K, c.flat + c.weight_at(i), l.transposed);
    });
  }
}

inline Vec relu(Vec y) { return y < 0.0f ? Vec{} : y; }  // so that NaN stays NaN and is found

// M rows z become normalised in place, and out = relu(gain * z + shift). The rows go side by side,
// so that their sums do not wait for one another.
template <int M>
void norm_relu(const Shape& s, long ld, const Layer& l, const float* mask, float* z, float* scale,
               float* out) {
  Vec sum[M] = {}, squares[M] = {};
  float mean[M];
  for (long j = 0; j < ld; j += kLanes)
    for (int i = 0; i < M; i++) sum[i] += load(z + i * ld + j);
  for (int i = 0; i < M; i++) mean[i] = total(sum[i]) / s.width;
  for (long j = 0; j < ld; j += kLanes)
    for (int i = 0; i < M; i++) {
      const Vec centred = (load(z + i * ld + j) - mean[i]) * load(mask + j);
      store(z + i * ld + j, centred);
      squares[i] += centred * centred;
    }
  for (int i = 0; i < M; i++) scale[i] = 1.0f / std::sqrt(total(squares[i]) / s.width + kNormEps);
  for (long j = 0; j < ld; j += kLanes)
    for (int i = 0; i < M; i++) {
      const Vec hat = load(z + i * ld + j) * scale[i];
      store(z + i * ld + j, hat);
      store(out + i * ld + j, relu(load(l.gain + j) * hat + load(l.shift + j)));
    }
}

void relu_rows(long count, const float* z, float* out) {
  for (long j = 0; j < count; j += kLanes) store(out + j, relu(load(z + j)));
}

// M rows back through ReLU and LayerNorm; d, of the output, becomes that of the product. Adds to the
// gradients of gain, shift and bias.
template <int M>
void norm_relu_backward(const Shape& s, long ld, const Layer& l, const float* mask,
                        const float* hat, const float* scale, float* d) {
  Vec sum[M] = {}, product[M] = {};
  float mean[M], slope[M];
  for (long j = 0; j < ld; j += kLanes) {
    const Vec gain = load(l.gain + j), shift = load(l.shift + j);
    Vec to_gain = load(l.gain_sum + j), to_shift = load(l.shift_sum + j);
    for (int i = 0; i < M; i++) {
      const Vec h = load(hat + i * ld + j);
      const Vec dy = gain * h + shift > 0.0f ? load(d + i * ld + j) : Vec{};
      to_shift += dy;
      to_gain += dy * h;
      store(d + i * ld + j, dy * gain);
      sum[i] += dy * gain;
      product[i] += dy * gain * h;
    }
    store(l.gain_sum + j, to_gain);
    store(l.shift_sum + j, to_shift);
  }
  for (int i = 0; i < M; i++)
    mean[i] = total(sum[i]) / s.width, slope[i] = total(product[i]) / s.width;
  for (long j = 0; j < ld; j += kLanes) {
    Vec to_bias = load(l.bias_sum + j);
    for (int i = 0; i < M; i++) {
      const Vec dh = load(d + i * ld + j) - mean[i] - load(hat + i * ld + j) * slope[i];
      const Vec dz = dh * scale[i] * load(mask + j);
      store(d + i * ld + j, dz);
      to_bias += dz;
    }
    store(l.bias_sum + j, to_bias);
  }
}

void relu_backward(long rows, long ld, const Layer& l, const float* z, float* d) {
  for (long j = 0; j < ld; j += kLanes)
    for (long i = 0; i < rows; i++) {
      const Vec dz = load(z + i * ld + j) > 0.0f ? load(d + i * ld + j) : Vec{};
      store(d + i * ld + j, dz);
      store(l.bias_sum + j, load(l.bias_sum + j) + dz);
    }
}

// Calls with the number of rows as a constant.
template <class Call>
void with_rows(long rows, Call call) {
  switch (rows) {
    case 1: return call(std::integral_constant<int, 1>{});
    case 2: return call(std::integral_constant<int, 2>{});
    case 3: return call(std::integral_constant<int, 3>{});
    case 4: return call(std::integral_constant<int, 4>{});
    case 5: return call(std::integral_constant<int, 5>{});
    default: return call(std::integral_constant<int, kRows>{});
  }
}

// One chunk.
template <class F>
void forward(const Critic& c, long rows, const float* inputs, float* values, Scratch<F>& k) {
  const Shape& s = c.s;
  const long ld = k.ld;
  for (long r = 0; r < rows; r += kRows) {
    const long height = std::min<long>(kRows, rows - r);
    const float* in = inputs + r * s.inputs;
    for (long i = 0; i < s.layers; i++) {
      Layer& l = k.layers[i];
      float* z = l.hat + r * ld;
      in_format<F>(i, [&](auto f) {
        using Format = decltype(f);
        const long K = c.fan_in(i), stride = i ? ld : s.inputs;
        const float* left = in;
        if (i == 0 || !Format::kKeepsLeft) left = f.left(height, K, in, stride, k.left);
        multiply<Format>(height, ld, f.elements(K), left, f.left_stride(K, stride), 1, l.panels, z,
                         ld, l.bias, 0);
      });
      float* x = i + 1 < s.layers ? k.layers[i + 1].x : nullptr;  // what the way back needs of out
      float* out = x && !F::kKeepsLeft ? x + r * ld : k.out;
      with_rows(height, [&](auto m) {
        if (s.layer_norm)
          norm_relu<decltype(m)::value>(s, ld, l, k.mask, z, l.scale + r, out);
        else
          relu_rows(height * ld, z, out);
      });
      in = x && F::kKeepsLeft ? F::left(height, s.width, out, ld, x + r * s.width) : out;
    }
    for (long i = 0; i < height; i++) {
      Vec sum = {};
      for (long j = 0; j < ld; j += kLanes) sum += load(in + i * ld + j) * load(k.head + j);
      values[r + i] = total(sum) + c.flat[c.bias_at(s.layers)];
    }
  }
}

// One block of rows on the way back: its d_values become gradients of each layer's product, kept in
// panels for the gradients of the weights.
template <class F>
void backward_block(const Critic& c, long rows, long r, long height, Scratch<F>& k, bool gradients,
                    float* d_inputs) {
  const Shape& s = c.s;
  const long ld = k.ld;
  float *d = k.d, *next = k.next;
  const Layer& last = k.layers[s.layers - 1];
  for (long j = 0; j < ld; j += kLanes) {
    const Vec gain = load(last.gain + j), shift = load(last.shift + j), weight = load(k.head + j);
    Vec to_head = load(k.head_sum + j);
    for (long i = 0; i < height; i++) {
      const Vec hat = load(last.hat + (r + i) * ld + j);
      to_head += k.d_values[r + i] * relu(s.layer_norm ? gain * hat + shift : hat);
      store(d + i * ld + j, k.d_values[r + i] * weight);
    }
    store(k.head_sum + j, to_head);
  }
  for (long i = s.layers - 1; i >= 0; i--) {
    Layer& l = k.layers[i];
    with_rows(height, [&](auto m) {
      if (s.layer_norm)
        norm_relu_backward<decltype(m)::value>(s, ld, l, k.mask, l.hat + r * ld, l.scale + r, d);
      else
        relu_backward(height, ld, l, l.hat + r * ld, d);
    });
    const bool more = i > 0 || d_inputs;
    in_format<F>(i, [&](auto f) {
      using Format = decltype(f);
      if (gradients) f.pack(r, height, rows, s.width, d, ld, l.d_panels);
      if (!more) return;
      const float* left = f.left(height, s.width, d, ld, k.left);
      multiply<Format>(height, i ? ld : s.inputs, f.elements(s.width), left,
                       f.left_stride(s.width, ld), 1, l.transposed,
                       i ? next : d_inputs + r * s.inputs, i ? ld : s.inputs, nullptr, 0);
    });
    std::swap(d, next);
  }
}

// One chunk: gradients of the parameters, if asked for, and of the inputs, if asked for, of the sum
// over rows of factor * d_values * value. Those of the parameters are added to what is there, unless
// this is the batch's first chunk.
template <class F>
void backward(const Critic& c, long rows, const float* inputs, float factor, bool first,
              float* gradients, float* d_inputs, Scratch<F>& k) {
  const Shape& s = c.s;
  const long ld = k.ld;
  std::memset(k.head_sum, 0, ld * 4);
  for (Layer& l : k.layers)
    for (float* sum : {l.bias_sum, l.gain_sum, l.shift_sum}) std::memset(sum, 0, ld * 4);
  for (long r = 0; r < rows; r += kRows)
    backward_block(c, rows, r, std::min<long>(kRows, rows - r), k, gradients != nullptr, d_inputs);
  if (d_inputs)
    for (long j = 0; j < rows * s.inputs; j++) d_inputs[j] *= factor;
  if (!gradients) return;
  const auto put = [&](long at, long count, const float* sum) {
    for (long j = 0; j < count; j++)
      gradients[at + j] = factor * sum[j] + (first ? 0.0f : gradients[at + j]);
  };
  float sum = 0;
  for (long r = 0; r < rows; r++) sum += k.d_values[r];
  put(c.bias_at(s.layers), 1, &sum);
  put(c.weight_at(s.layers), s.width, k.head_sum);
  for (long i = 0; i < s.layers; i++) {
    const Layer& l = k.layers[i];
    put(c.bias_at(i), s.width, l.bias_sum);
    if (s.layer_norm)
      put(c.gain_at(i), s.width, l.gain_sum), put(c.shift_at(i), s.width, l.shift_sum);
    in_format<F>(i, [&](auto f) {
      using Format = decltype(f);
      const long K = c.fan_in(i), stride = i ? ld : s.inputs;
      const float* left = i ? l.x : inputs;
      if (i == 0 || !Format::kKeepsLeft) left = f.left_transposed(rows, K, left, stride, k.columns);
      float* to = gradients + c.weight_at(i);
      multiply<Format>(K, s.width, f.elements(rows), left, 1, f.transposed_stride(K, stride),
                       l.d_panels, to, s.width, first ? nullptr : to, s.width, factor);
    });
  }
}

// A power of two that brings the largest of the values to about 1/16: far from where float16 ends on
// both sides. 1 for formats that need none.
template <class F>
float scale_for(long count, const float* values) {
  if (!F::kScaled) return 1.0f;
  float largest = 0;
  for (long r = 0; r < count; r++) largest = std::max(largest, std::fabs(values[r]));
  if (!(largest > 0.0f) || !std::isfinite(largest)) return 1.0f;
  return std::ldexp(1.0f, -4 - std::ilogb(largest));
}

struct Sums {
  double squares, values, gradients;  // of the errors; of the values; squares of the gradients
  bool finite() const { return std::isfinite(squares + values + gradients); }
};

// Gradients of the mean over critics and rows of (value - target)^2.
template <class F>
Sums loss_gradients_in(const Critic& c, const float* inputs, const float* target, long rows,
                       float* gradients) {
  Scratch<F> k(c.s, rows);
  k.read(c, 1);
  Sums sums{};
  for (long from = 0; from < rows; from += k.rows) {
    const long count = std::min(k.rows, rows - from);
    const float* x = inputs + from * c.s.inputs;
    forward(c, count, x, k.d_values, k);
    for (long r = 0; r < count; r++) {
      const float error = k.d_values[r] - target[from + r];
      sums.squares += (double)error * error, sums.values += k.d_values[r];
      k.d_values[r] = error;
    }
    const float scale = scale_for<F>(count, k.d_values);
    for (long r = 0; r < count; r++) k.d_values[r] *= scale;
    const float factor = 2.0f / (float)(rows * c.s.critics) / scale;
    backward(c, count, x, factor, from == 0, gradients, nullptr, k);
  }
  each_part(c, [&](long begin, long length) {
    float squares = 0;
    for (long i = begin; i < begin + length; i++) squares += gradients[i] * gradients[i];
    sums.gradients += squares;
  });
  return sums;
}

// In a format that may overflow, what is not finite is computed once more in float32: only numbers
// that are not finite there either count.
template <class F>
Sums loss_gradients(const Critic& c, const float* inputs, const float* target, long rows,
                    float* gradients) {
  const Sums sums = loss_gradients_in<F>(c, inputs, target, rows, gradients);
  if (!F::kScaled || sums.finite()) return sums;
  return loss_gradients_in<Float32>(c, inputs, target, rows, gradients);
}

// Values of all rows and, if asked for, their derivatives by the inputs; whether all are finite.
template <class F>
bool values_in(const Critic& c, const float* inputs, long rows, float* values, float* d_inputs) {
  Scratch<F> k(c.s, rows);
  k.read(c, d_inputs ? 0 : c.s.layers);
  const float one = F::kScaled ? 1.0f / 16 : 1.0f;
  bool finite = true;
  for (long from = 0; from < rows; from += k.rows) {
    const long count = std::min(k.rows, rows - from);
    const float* x = inputs + from * c.s.inputs;
    forward(c, count, x, values + from, k);
    for (long r = 0; r < count; r++) finite &= std::isfinite(values[from + r]);
    if (!d_inputs) continue;
    float* d = d_inputs + from * c.s.inputs;
    std::fill(k.d_values, k.d_values + count, one);
    backward(c, count, x, 1.0f / one, true, nullptr, d, k);
    for (long j = 0; j < count * c.s.inputs; j++) finite &= std::isfinite(d[j]);
  }
  return finite;
}

template <class F>
void values_of(const Critic& c, const float* inputs, long rows, float* values,
               float* d_inputs = nullptr) {
  if (!values_in<F>(c, inputs, rows, values, d_inputs) && F::kScaled)
    values_in<Float32>(c, inputs, rows, values, d_inputs);
}

// While it lives, numbers too small to be normal count as zero: the moments of a weight whose gradient
// is zero fade through them, where arithmetic is many times slower.
struct FlushSmall {
#if defined(__SSE__) && !defined(RLIF_NO_INTRINSICS)
  unsigned before = __builtin_ia32_stmxcsr();
  FlushSmall() { __builtin_ia32_ldmxcsr(before | 0x8040); }
  ~FlushSmall() { __builtin_ia32_ldmxcsr(before); }
#endif
};

void adam_part(long begin, long length, State v, Rates rates, float size, float correction) {
  const FlushSmall flush;
  float *__restrict values = v.values + begin, *__restrict first = v.first + begin;
  float *__restrict second = v.second + begin, *__restrict target = v.target + begin;
  const float* __restrict gradients = v.gradients + begin;
  const float* decayed = v.decayed ? v.decayed + begin : nullptr;
  if (decayed)
    for (long i = 0; i < length; i++) values[i] -= rates.shrink * decayed[i] * values[i];
  const float eps = rates.eps * correction;
  for (long i = 0; i < length; i++) {
    const float g = gradients[i];
    first[i] += rates.rest1 * (g - first[i]);
    second[i] = rates.beta2 * second[i] + rates.rest2 * g * g;
    values[i] -= size * first[i] / (std::sqrt(second[i]) + eps);
    target[i] += rates.tau * (values[i] - target[i]);
  }
}

// Hands out tasks to threads: first each its own part, always the same, then what is left.
class Tasks {
 public:
  explicit Tasks(long count) : taken_(count) {}
  template <class Task>
  void work(long thread, long threads, Task task) {
    const long count = taken_.size(), start = thread * count / threads;
    for (long n = 0; n < count; n++) {
      const long i = (start + n) % count;
      if (!taken_[i].exchange(true, std::memory_order_relaxed)) task(i);
    }
  }

 private:
  std::vector<std::atomic<bool>> taken_;
};

// A block of rows for each thread, where there are fewer critics than threads.
struct Blocks {
  long height, count;
  Blocks(long rows, long critics, long threads) {
    const long parts = (threads + critics - 1) / critics;
    height = up((rows + parts - 1) / parts, kRows), count = (rows + height - 1) / height;
  }
};

template <class F>
void critic_steps_in(const Shape& s, const State& state, const Rates& rates, const Batches& b,
                     Sums* sums, int64_t* done) {
  std::vector<float> next(b.subset_size * b.rows);  // values of the next states, of the subset
  std::vector<std::unique_ptr<Tasks>> gradients, moves;
  for (long n = 0; n <= b.steps; n++) {
    gradients.push_back(std::make_unique<Tasks>(s.critics));
    moves.push_back(std::make_unique<Tasks>(s.critics));
  }
  // What step n needs of target critic e, if it is in that step's subset.
  const auto look_ahead = [&](long n, long e) {
    for (long j = 0; n < b.steps && j < b.subset_size; j++)
      if (b.subset[n * b.subset_size + j] == e)
        values_of<F>(Critic{s, state.target, e}, b.next_inputs + n * b.rows * s.inputs, b.rows,
                     next.data() + j * b.rows);
  };
#pragma omp parallel num_threads(s.threads)
  {
    const long thread = omp_get_thread_num(), threads = omp_get_num_threads();
    std::vector<float> target(b.rows);
    moves[b.steps]->work(thread, threads, [&](long e) { look_ahead(0, e); });
#pragma omp barrier
    for (long n = 0; n < b.steps; n++) {
      for (long r = 0; r < b.rows; r++) {
        float least = next[r];
        for (long j = 1; j < b.subset_size; j++) {
          const float other = next[j * b.rows + r];
          least = other >= least ? least : other;  // NaN stays NaN
        }
        least = least > b.highest ? b.highest : least;
        target[r] = b.rewards[n * b.rows + r] + b.discounts[n * b.rows + r] * least;
      }
      Sums* found = sums + n * s.critics;
      gradients[n]->work(thread, threads, [&](long e) {
        found[e] = loss_gradients<F>(Critic{s, state.values, e}, b.inputs + n * b.rows * s.inputs,
                                     target.data(), b.rows, state.gradients);
      });
#pragma omp barrier
      // All threads see the same sums: either all go on or none does, and no weight has changed.
      if (!std::all_of(found, found + s.critics, [](const Sums& sum) { return sum.finite(); })) break;
      moves[n]->work(thread, threads, [&](long e) {
        each_part(Critic{s, state.values, e}, [&](long begin, long length) {
          adam_part(begin, length, state, rates, b.sizes[n], b.corrections[n]);
        });
        look_ahead(n + 1, e);  // its target is in this core's cache now
      });
#pragma omp barrier
      if (thread == 0) *done = n + 1;
    }
  }
}

// Calls with the format of this number: 0 float32, 1 bfloat16, 2 float16.
template <class Call>
void with_format(int number, Call call) {
#ifdef RLIF_BFLOAT16
  if (number == 1) return call(BFloat16{});
#endif
#ifdef RLIF_FLOAT16
  if (number == 2) return call(Float16{});
#endif
  call(Float32{});
}

}  // namespace

extern "C" {

// Whether this build has the format of this number.
int has_format(int number) {
#ifdef RLIF_BFLOAT16
  if (number == 1) return 1;
#endif
#ifdef RLIF_FLOAT16
  if (number == 2) return 1;
#endif
  return number == 0;
}

// `b.steps` critic steps; returns how many were done: the next one's sums are then not finite, and no
// weight was changed by it. sums [steps, critics, 3]: see Sums.
int64_t critic_steps(const Shape* s, int format, const State* state, const Rates* rates,
                     const Batches* b, double* sums) {
  int64_t done = 0;
  with_format(format, [&](auto f) {
    critic_steps_in<decltype(f)>(*s, *state, *rates, *b, reinterpret_cast<Sums*>(sums), &done);
  });
  return done;
}

// values [count, rows] of the critics in `subset` for x [rows, inputs].
void critic_values(const Shape* s, int format, const float* flat, const float* x, int64_t rows,
                   const int64_t* subset, int64_t count, float* values) {
  const Blocks blocks(rows, count, s->threads);
  with_format(format, [&](auto f) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(s->threads)
    for (long task = 0; task < count * blocks.count; task++) {
      const long j = task / blocks.count, from = task % blocks.count * blocks.height;
      values_of<decltype(f)>(Critic{*s, flat, subset[j]}, x + from * s->inputs,
                             std::min<long>(blocks.height, rows - from), values + j * rows + from);
    }
  });
}

// Gradients, in the layout of `flat`, of the mean over critics and rows of (value - target)^2;
// sums [critics, 3]: see Sums.
void critic_loss_gradients(const Shape* s, int format, const float* flat, const float* x,
                           const float* target, int64_t rows, float* gradients, double* sums) {
  with_format(format, [&](auto f) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(s->threads)
    for (long e = 0; e < s->critics; e++)
      reinterpret_cast<Sums*>(sums)[e] =
          loss_gradients<decltype(f)>(Critic{*s, flat, e}, x, target, rows, gradients);
  });
}

// values [critics, rows] and their derivatives by the inputs [critics, rows, inputs].
void critic_input_gradients(const Shape* s, int format, const float* flat, const float* x,
                            int64_t rows, float* values, float* d_inputs) {
  with_format(format, [&](auto f) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(s->threads)
    for (long e = 0; e < s->critics; e++)
      values_of<decltype(f)>(Critic{*s, flat, e}, x, rows, values + e * rows,
                             d_inputs + e * rows * s->inputs);
  });
}

// One step of Adam, and the target's average, of vectors of n entries.
void adam_and_average(int64_t n, const State* state, const Rates* rates, float size,
                      float correction, int64_t threads) {
  constexpr long part = 1 << 14;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (long begin = 0; begin < n; begin += part)
    adam_part(begin, std::min<long>(part, n - begin), *state, *rates, size, correction);
}
}
