// The part of LibTorch that pompc uses: tensors, their operators and autograd. Include this rather
// than torch/torch.h, which costs 20 to 40 s a unit; this header is precompiled.
#ifndef POMPC_COMMON_MODEL_TENSOR_H_
#define POMPC_COMMON_MODEL_TENSOR_H_

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/grad_mode.h>
#include <torch/csrc/autograd/variable.h>

#endif  // POMPC_COMMON_MODEL_TENSOR_H_
