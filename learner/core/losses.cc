#include "learner/core/losses.h"
