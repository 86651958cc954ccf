#include "learner/core/adam.h"
