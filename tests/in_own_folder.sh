#!/usr/bin/env bash
# Runs a test with a folder of its own for what it leaves, which goes once the test has passed.
#   in_own_folder.sh TEST [ARGUMENTS]
set -u
folder=$(mktemp -d /tmp/pompc-test-XXXXXX)  # Short: the path of a socket has 107 characters.
TMPDIR=$folder TEST_TMPDIR=$folder/ "$@"
status=$?
case $status in
  0 | 77) rm -rf "$folder" ;;  # 77: skipped.
  *) echo "What the test left: $folder" >&2 ;;
esac
exit $status
