// Owners of OpenSSL's objects.
#ifndef POMPC_COMMON_RPC_OPENSSL_PTR_H_
#define POMPC_COMMON_RPC_OPENSSL_PTR_H_

#include <openssl/bio.h>

#include <memory>

namespace pompc {

template <typename T, void (*Free)(T*)>
struct OpensslFreer {
  void operator()(T* object) const { Free(object); }
};
template <typename T, void (*Free)(T*)>
using OpensslPtr = std::unique_ptr<T, OpensslFreer<T, Free>>;

using BioPtr = OpensslPtr<BIO, BIO_free_all>;

}  // namespace pompc

#endif  // POMPC_COMMON_RPC_OPENSSL_PTR_H_
