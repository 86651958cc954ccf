#include "common/base/nonce.h"

#include <unistd.h>

#include "common/base/check.h"

namespace pompc {

uint64_t DrawNonce() {
  uint64_t nonce = 0;
  while (nonce == 0) POMPC_CHECK(getentropy(&nonce, sizeof(nonce)) == 0);
  return nonce;
}

}  // namespace pompc
