"""Is a commit's message as CONTRIBUTING.rst wants it? Called by pre-commit.

python3 tools/check_message.py FILE
"""

import re
import sys
from pathlib import Path

AREAS = "loop net streams tls zmq rpc tests bench docs build".split()


def complaint(message):
    """What is wrong with a message, or None."""
    lines = [line for line in message.splitlines() if not line.startswith("#")]
    subject = lines[0] if lines else ""
    if re.match("(Merge|Revert|fixup!|squash!)", subject):
        return None
    area, colon, what = subject.partition(": ")
    if not colon or not what or area not in AREAS:
        return f"the subject is not 'area: what' with an area of {', '.join(AREAS)}"
    if len(subject) > 72:
        return f"the subject has {len(subject)} characters, 72 are the most"
    if len(lines) > 1 and lines[1]:
        return "the second line is not empty"
    if not any(lines[2:]):
        return "there is no body: why, what it costs, what was measured"
    return None


if __name__ == "__main__":
    wrong = complaint(Path(sys.argv[1]).read_text("utf-8"))
    sys.exit(wrong and f"{wrong}: see CONTRIBUTING.rst")
