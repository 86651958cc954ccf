#include "learner/core/updater.h"
