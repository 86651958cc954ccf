"""What tests of one `pompc train` do when something is wrong or has to be waited for."""
import sys

import waiting


def checks(deadline, process, logs):
    """fail(message), expect(condition, message) and wait_for(what, condition) of a test.

    deadline: of time.monotonic(). process: returns the present train process, None before the first.
    logs: returns the files whose ends tell what happened.
    """

    def fail(message):
        print("FAILED:", message)
        if process() is not None:
            process().kill()  # Its children go with it.
        for log in logs():
            print(f"--- {log.name}\n{log.read_text()[-3000:]}")
        sys.exit(1)

    def expect(condition, message):
        if not condition:
            fail(message)

    def has_not_ended(told):
        expect(process().poll() is None, f"pompc train has ended, code {process().returncode}, before: {told}")

    def wait_for(what, condition):
        return waiting.wait_for(what, condition, deadline, expect, has_not_ended)

    return fail, expect, wait_for
