// SPDX-License-Identifier: Apache-2.0
// The compiled critics as a program, for architectures that tests run in an emulator: reads one batch
// from standard input and writes the gradients and sums of its loss.

#include <cstdio>

#include "critic_kernel.cpp"

template <class T>
std::vector<T> take(size_t count) {
  std::vector<T> values(count);
  if (std::fread(values.data(), sizeof(T), count, stdin) != count) std::exit(1);
  return values;
}

int main() {
  // critics, inputs, layers, width, layer_norm, rows, parameters
  const auto sizes = take<int64_t>(7);
  const auto weights = take<int64_t>(sizes[2] + 1), biases = take<int64_t>(sizes[2] + 1);
  const auto gains = take<int64_t>(sizes[2]), shifts = take<int64_t>(sizes[2]);
  const auto flat = take<float>(sizes[6]), x = take<float>(sizes[5] * sizes[1]);
  const auto target = take<float>(sizes[5]);
  const Shape shape{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], 2,
                    weights.data(), biases.data(), gains.data(), shifts.data()};
  std::vector<float> gradients(sizes[6]);
  std::vector<double> sums(3 * sizes[0]);
  critic_loss_gradients(&shape, 0, flat.data(), x.data(), target.data(), sizes[5],
                        gradients.data(), sums.data());
  std::fwrite(gradients.data(), sizeof(float), gradients.size(), stdout);
  std::fwrite(sums.data(), sizeof(double), sums.size(), stdout);
}
