#pragma once

#include <vector>

#include "core/tensor/tensor.h"
#include "reference/llama_layer.h"

namespace qshard::reference {

/// The two ends of the model around its decoder layers, all dense. Embedding and output head may be trained whole.
template <typename T>
struct EndWeights {
  TensorView embedding;    // [vocab, hidden]
  Vector<T> final_norm;    // [hidden]
  TensorView output_head;  // [vocab, hidden]; the embedding itself where they are tied
};

/// Rows of the embedding table, [tokens, hidden]. Throws Error(bad_input), naming row and position, for an id outside
/// the vocabulary.
template <typename T>
Matrix<T> embed(const EndWeights<T>& weights, const TokenBatch& batch);

/// Adds dx [tokens, hidden] to the rows of `gradient` [vocab, hidden] that the batch's tokens took, in their order.
template <typename T>
void embed_backward(const TokenBatch& batch, const Matrix<T>& dx, Matrix<T>& gradient);

/// The positions whose output predicts a label that counts, ascending: all that output_loss() reads.
std::vector<Eigen::Index> predicting_positions(const TokenBatch& batch);

/// Logits of the given rows of x (after the last layer): head(final_norm(x)), [x.rows(), vocab].
template <typename T>
Matrix<T> output_logits(const LayerContext<T>& context, const EndWeights<T>& weights, const Matrix<T>& x);

/// Sum of -log softmax(logits)[label of the next position] over the batch's unmasked tokens (in double), and where `dx`
/// is given the gradient of that sum times `gradient_scale` with respect to x. Works through the tokens in pieces, so
/// that the logits of a whole batch never exist at once; positions without a label cost nothing. Adds the output head's
/// gradient to `head_gradient` [vocab, hidden] where that is given, with dx.
template <typename T>
double output_loss(const LayerContext<T>& context, const EndWeights<T>& weights, const Matrix<T>& x,
                   double gradient_scale, Matrix<T>* dx, Matrix<T>* head_gradient = nullptr);

}  // namespace qshard::reference
