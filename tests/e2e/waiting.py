"""How tests of whole programs wait for something that has to happen."""
import time


def wait_for(what, condition, deadline, expect, meanwhile=lambda told: None, pause=0.1):
    """Returns the first value of condition() that is true.

    what: is waited for; a text, or a function that returns it. deadline: of time.monotonic(). expect:
    expect(condition, message) of the test, which ends it. meanwhile(told): what must not happen before.
    pause: in seconds, between two looks.
    """
    while not (result := condition()):
        told = what() if callable(what) else what
        expect(time.monotonic() < deadline, f"never happened: {told}")
        meanwhile(told)
        time.sleep(pause)
    return result
