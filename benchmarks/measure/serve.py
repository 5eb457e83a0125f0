"""A process that builds one object and calls its methods on commands from a pipe: ``processes.Process`` is the other end."""

from __future__ import annotations

import gc
import os
import pickle
import sys
import traceback


def main() -> None:
    """Read ``kind, arguments``, then ``(method, arguments)`` until stdin closes; answer each with ``(ok, answer)``."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not end up among the replies
    commands = sys.stdin.buffer
    gc.disable()  # garbage is collected between turns, not during them

    def reply(ok: bool, answer: object) -> None:
        pickle.dump((ok, answer), replies, protocol=pickle.HIGHEST_PROTOCOL)
        replies.flush()

    receiver = None
    while True:
        try:
            name, arguments = pickle.load(commands)
            if receiver is None:
                kind, *arguments = arguments
                receiver, answer = kind(*arguments), None
            else:
                answer = getattr(receiver, name)(*arguments)
        except EOFError:
            return
        except Exception:
            reply(False, traceback.format_exc())
        else:
            reply(True, answer)


if __name__ == "__main__":
    main()
