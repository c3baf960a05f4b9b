// The critics' passes for the processor: matrix products, LayerNorm, ReLU, Adam and the moving
// average, one critic per thread with its data in that core's cache, and no thread waits inside a
// critic. Threads take critics as they become free: a robot's other nodes run on the same cores.
// critic_kernel.py compiles this and says when it is used; EnsembleCritic in networks.py is the same
// in PyTorch.

#include "critic_products.h"

extern "C" {

// Sizes of the ensemble and where its parameters begin in the flat vector.
struct Shape {
  int64_t critics, inputs, layers, width, layer_norm, threads;
  const int64_t *weights, *biases, *gains, *shifts;  // [layers + 1], [layers + 1], [layers] x 2
};

int low_precision() {
#ifdef __AVX512BF16__
  return 1;
#else
  return 0;
#endif
}
}

namespace {

constexpr float kNormEps = 1e-6f;

// The parameters of one critic.
struct Critic {
  const Shape& s;
  const float* flat;
  long index;
  long fan_in(long i) const { return i ? s.width : s.inputs; }
  long weight_at(long i) const {
    return s.weights[i] + index * fan_in(i) * (i == s.layers ? 1 : s.width);
  }
  long bias_at(long i) const { return s.biases[i] + index * (i == s.layers ? 1 : s.width); }
  const float* weight(long i) const { return flat + weight_at(i); }
  const float* bias(long i) const { return flat + bias_at(i); }
  const float* gain(long i) const { return flat + s.gains[i] + index * s.width; }
  const float* shift(long i) const { return flat + s.shifts[i] + index * s.width; }
};

// What a forward pass leaves for the backward pass.
struct Trace {
  std::vector<float*> output, hat;  // per layer, [rows, width]: after ReLU; normalised
  std::vector<float*> scale;        // per layer, [rows]: 1 / standard deviation
};

// z [rows, width] becomes hat in place; out = relu(gain * hat + shift).
void norm_relu(long rows, long width, float* __restrict z, float* __restrict out,
               float* __restrict scale, const float* __restrict gain,
               const float* __restrict shift) {
  for (long r = 0; r < rows; r++, z += width, out += width) {
    float sum = 0, squares = 0;
    for (long j = 0; j < width; j++) sum += z[j];
    const float mean = sum / width;
    for (long j = 0; j < width; j++) squares += (z[j] - mean) * (z[j] - mean);
    scale[r] = 1.0f / std::sqrt(squares / width + kNormEps);
    for (long j = 0; j < width; j++) {
      z[j] = (z[j] - mean) * scale[r];
      const float y = gain[j] * z[j] + shift[j];
      out[j] = y < 0.0f ? 0.0f : y;  // in this order, so that NaN stays NaN and is found
    }
  }
}

void relu(long count, const float* __restrict z, float* __restrict out) {
  for (long j = 0; j < count; j++) out[j] = z[j] < 0.0f ? 0.0f : z[j];
}

template <bool LOW>
void forward(const Critic& critic, long rows, const float* x, float* values, Trace& trace,
             float* panels, float* pairs) {
  const Shape& s = critic.s;
  for (long i = 0; i < s.layers; i++) {
    const long K = critic.fan_in(i);
    pack<LOW>(K, s.width, critic.weight(i), panels);
    if (LOW) pair_rows(rows, K, x, pairs);
    multiply<LOW>(rows, s.width, elements<LOW>(K), LOW ? pairs : x, elements<LOW>(K), 1, panels,
                  trace.hat[i], critic.bias(i));
    if (s.layer_norm)
      norm_relu(rows, s.width, trace.hat[i], trace.output[i], trace.scale[i], critic.gain(i),
                critic.shift(i));
    else
      relu(rows * s.width, trace.hat[i], trace.output[i]);
    x = trace.output[i];
  }
  const float* weight = critic.weight(s.layers);
  for (long r = 0; r < rows; r++) {
    float value = 0;
    for (long j = 0; j < s.width; j++) value += x[r * s.width + j] * weight[j];
    values[r] = value + critic.bias(s.layers)[0];
  }
}

// One row of the way back through ReLU and LayerNorm; d, of the output, becomes that of the product.
// Plain pointers and no branches, so that the compiler makes vectors of it.
void norm_relu_row_backward(long width, const float* __restrict out, const float* __restrict hat,
                            const float* __restrict weights, float scale, float* __restrict d,
                            float* __restrict dh, float* __restrict gain, float* __restrict shift,
                            float* __restrict bias) {
  float sum = 0, product = 0;
  for (long j = 0; j < width; j++) {
    const float dy = out[j] > 0.0f ? d[j] : 0.0f, h = dy * weights[j];
    shift[j] += dy;
    gain[j] += dy * hat[j];
    dh[j] = h;
    sum += h;
    product += h * hat[j];
  }
  sum /= width, product /= width;
  for (long j = 0; j < width; j++) {
    const float dz = (dh[j] - sum - hat[j] * product) * scale;
    d[j] = dz;
    bias[j] += dz;
  }
}

void relu_row_backward(long width, const float* __restrict out, float* __restrict d,
                       float* __restrict bias) {
  for (long j = 0; j < width; j++) {
    const float dz = out[j] > 0.0f ? d[j] : 0.0f;
    d[j] = dz;
    bias[j] += dz;
  }
}

// All rows; sums of columns go to the gradients of gain, shift and bias.
void norm_relu_backward(const Critic& critic, long i, long rows, const Trace& trace, float* d,
                        float* gradients) {
  const Shape& s = critic.s;
  const long width = s.width;
  std::vector<float> sums(4 * width, 0.0f);
  float *bias = sums.data(), *gain = bias + width, *shift = gain + width, *dh = shift + width;
  for (long r = 0; r < rows; r++) {
    const long at = r * width;
    if (s.layer_norm)
      norm_relu_row_backward(width, trace.output[i] + at, trace.hat[i] + at, critic.gain(i),
                             trace.scale[i][r], d + at, dh, gain, shift, bias);
    else
      relu_row_backward(width, trace.output[i] + at, d + at, bias);
  }
  if (!gradients) return;
  std::memcpy(gradients + critic.bias_at(i), bias, width * 4);
  if (s.layer_norm) {
    std::memcpy(gradients + s.gains[i] + critic.index * width, gain, width * 4);
    std::memcpy(gradients + s.shifts[i] + critic.index * width, shift, width * 4);
  }
}

// Gradients of the parameters, if asked for, and of the inputs, if asked for.
template <bool LOW>
void backward(const Critic& critic, long rows, const float* inputs, const float* d_values,
              Trace& trace, float* gradients, float* d_inputs, float* d, float* next,
              float* panels, float* pairs) {
  const Shape& s = critic.s;
  const float *last = trace.output[s.layers - 1], *weight = critic.weight(s.layers);
  if (gradients) {
    float *to = gradients + critic.weight_at(s.layers), total = 0;
    std::memset(to, 0, s.width * 4);
    for (long r = 0; r < rows; r++) {
      total += d_values[r];
      for (long j = 0; j < s.width; j++) to[j] += d_values[r] * last[r * s.width + j];
    }
    gradients[critic.bias_at(s.layers)] = total;
  }
  for (long r = 0; r < rows; r++)
    for (long j = 0; j < s.width; j++) d[r * s.width + j] = d_values[r] * weight[j];
  for (long i = s.layers - 1; i >= 0; i--) {
    const long K = critic.fan_in(i);
    norm_relu_backward(critic, i, rows, trace, d, gradients);
    if (gradients) {
      const float* x = i ? trace.output[i - 1] : inputs;
      pack<LOW>(rows, s.width, d, panels);
      if (LOW) pair_columns(rows, K, x, pairs);
      multiply<LOW>(K, s.width, elements<LOW>(rows), LOW ? pairs : x, 1, K, panels,
                    gradients + critic.weight_at(i), nullptr);
    }
    if (i == 0 && !d_inputs) break;
    if (LOW) pair_rows(K, s.width, critic.weight(i), pairs);
    pack_transposed(elements<LOW>(s.width), K, LOW ? pairs : critic.weight(i), panels);
    if (LOW) pair_rows(rows, s.width, d, pairs);
    multiply<LOW>(rows, K, elements<LOW>(s.width), LOW ? pairs : d, elements<LOW>(s.width), 1,
                  panels, i ? next : d_inputs, nullptr);
    std::swap(d, next);
  }
}

// Scratch memory of a pass over `rows` rows.
struct Scratch {
  Trace trace;
  float *d, *next, *panels, *pairs, *d_values;
  Scratch(const Shape& s, long rows) {
    const long wide = std::max(s.width, s.inputs), matrix = up(rows * wide, 16);
    const long panel = up(std::max(wide, rows), 2) * up(wide, kPanel);
    const long paired = up(std::max(wide, rows), 2) * (wide / 2 + 1);
    arena.reset((2 * s.layers + 2) * matrix + (s.layers + 1) * up(rows, 16) + panel + up(paired, 16));
    for (long i = 0; i < s.layers; i++) {
      trace.output.push_back(arena.take(matrix));
      trace.hat.push_back(arena.take(matrix));
      trace.scale.push_back(arena.take(rows));
    }
    d = arena.take(matrix), next = arena.take(matrix), pairs = arena.take(paired);
    panels = arena.take(panel), d_values = arena.take(rows);
  }
};

template <bool LOW>
void values_of(const Shape& s, const float* flat, const float* x, long rows, const int64_t* subset,
               long count, float* values) {
  const long parts = (s.threads + count - 1) / count, block = up((rows + parts - 1) / parts, kRows);
  const long blocks = (rows + block - 1) / block;
#pragma omp parallel for schedule(static) num_threads(s.threads)
  for (long task = 0; task < count * blocks; task++) {
    const long j = task / blocks, from = task % blocks * block;
    const long height = std::min(block, rows - from);
    Scratch scratch(s, height);
    forward<LOW>(Critic{s, flat, subset[j]}, height, x + from * s.inputs, values + j * rows + from,
                 scratch.trace, scratch.panels, scratch.pairs);
  }
}

template <bool LOW>
void loss_gradients(const Shape& s, const float* flat, const float* x, const float* target,
                    long rows, float* gradients, double* sums) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(s.threads)
  for (long e = 0; e < s.critics; e++) {
    const Critic critic{s, flat, e};
    Scratch scratch(s, rows);
    forward<LOW>(critic, rows, x, scratch.d_values, scratch.trace, scratch.panels, scratch.pairs);
    double squares = 0, total = 0;
    for (long r = 0; r < rows; r++) {
      const float error = scratch.d_values[r] - target[r];
      squares += (double)error * error, total += scratch.d_values[r];
      scratch.d_values[r] = 2.0f * error / (float)(rows * s.critics);
    }
    sums[2 * e] = squares, sums[2 * e + 1] = total;
    backward<LOW>(critic, rows, x, scratch.d_values, scratch.trace, gradients, nullptr, scratch.d,
                  scratch.next, scratch.panels, scratch.pairs);
  }
}

template <bool LOW>
void input_gradients(const Shape& s, const float* flat, const float* x, long rows, float* values,
                     float* d_inputs) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(s.threads)
  for (long e = 0; e < s.critics; e++) {
    const Critic critic{s, flat, e};
    Scratch scratch(s, rows);
    forward<LOW>(critic, rows, x, values + e * rows, scratch.trace, scratch.panels, scratch.pairs);
    std::fill(scratch.d_values, scratch.d_values + rows, 1.0f);
    backward<LOW>(critic, rows, x, scratch.d_values, scratch.trace, nullptr,
                  d_inputs + e * rows * s.inputs, scratch.d, scratch.next, scratch.panels,
                  scratch.pairs);
  }
}

}  // namespace

extern "C" {

// values [count, rows] of the critics in `subset` for x [rows, inputs].
void critic_values(const Shape* s, int low, const float* flat, const float* x, int64_t rows,
                   const int64_t* subset, int64_t count, float* values) {
  (low ? values_of<true> : values_of<false>)(*s, flat, x, rows, subset, count, values);
}

// Gradients, in the layout of `flat`, of the mean over critics and rows of (value - target)^2;
// sums [critics, 2]: of the squared errors and of the values.
void critic_loss_gradients(const Shape* s, int low, const float* flat, const float* x,
                           const float* target, int64_t rows, float* gradients, double* sums) {
  (low ? loss_gradients<true> : loss_gradients<false>)(*s, flat, x, target, rows, gradients, sums);
}

// values [critics, rows] and their derivatives by the inputs [critics, rows, inputs].
void critic_input_gradients(const Shape* s, int low, const float* flat, const float* x,
                            int64_t rows, float* values, float* d_inputs) {
  (low ? input_gradients<true> : input_gradients<false>)(*s, flat, x, rows, values, d_inputs);
}

// One step of Adam (AdamW where `decayed` is given), then target += tau (values - target).
void adam_and_average(int64_t n, float* values, const float* gradients, float* first, float* second,
                      float* target, const float* decayed, float size, float eps, float beta1,
                      float beta2, float shrink, float tau, int64_t threads) {
#pragma omp parallel for schedule(dynamic, 1 << 14) num_threads(threads)
  for (int64_t i = 0; i < n; i++) {
    const float g = gradients[i];
    first[i] += (1.0f - beta1) * (g - first[i]);
    second[i] = beta2 * second[i] + (1.0f - beta2) * g * g;
    float value = values[i];
    if (decayed) value -= shrink * decayed[i] * value;
    value -= size * first[i] / (std::sqrt(second[i]) + eps);
    values[i] = value;
    target[i] += tau * (value - target[i]);
  }
}
}
