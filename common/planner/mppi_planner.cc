#include "common/planner/mppi_planner.h"
