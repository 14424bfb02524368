"""The shell scripts that run on the board: POSIX sh, with every value as a positional parameter."""

import shlex

NO_PYTHON, NO_TOOL, NO_CACHE = 31, 32, 33
"""Exit statuses of `INTRODUCE`."""

INTRODUCE = r"""
umask 077; LC_ALL=C; export LC_ALL
cache=$2
[ -n "$cache" ] || cache=${EDGEKD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/edgekd}/agent
python=
new='import sys; sys.exit(sys.version_info < (3, 8))'
for each in ${1:-python3 python3.13 python3.12 python3.11 python3.10 python3.9 python3.8 \
    /usr/bin/python3 /usr/local/bin/python3}; do
  "${1:-$each}" -c "$new" </dev/null >/dev/null 2>&1 || continue
  python=$(command -v -- "${1:-$each}") && break
done
[ -n "$python" ] || exit 31
for tool in cat sha256sum mv rm mkdir find wc; do
  command -v "$tool" >/dev/null || { echo "$tool" >&2; exit 32; }
done
limit=
timeout -k 1 5 true </dev/null 2>/dev/null && limit=yes
mkdir -p -- "$cache/files" "$cache/sessions" && cd -- "$cache" && cache=$(pwd -P) || exit 33
for old in sessions/*; do
  [ -d "$old" ] || continue
  pid=$(cat "$old/.keeper" 2>/dev/null) || { sleep 1; pid=$(cat "$old/.keeper" 2>/dev/null); }
  { [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; } || rm -rf -- "$old"
done
find files -mindepth 1 -maxdepth 1 -mtime +30 -exec rm -rf {} +
session=$cache/sessions/$3
mkdir -- "$session" && echo $$ >"$session/.keeper" && [ -s "$session/.keeper" ] ||
  { rm -rf -- "$session"; exit 33; }
printf '%s\n' "$python" "$cache" "$session" "$limit" "$(uname -m)"
gone() { rm -rf -- "$session"; [ -d "$session" ] && sleep 1 && rm -rf -- "$session"; exit 0; }
trap gone HUP INT TERM
cat >/dev/null
gone
"""
"""Find Python and the cache, create this session's folder, and remove it when stdin ends, however
that happens; only files under their hashes stay. Leftovers of dead sessions are removed too, and
files unused for a month. $1 python, $2 cache, $3 session."""

HAVE = r"""
[ -f "$1" ] || exit 1
sum=$(sha256sum <"$1") && [ "${sum%% *}" = "$2" ] && touch -- "${1%/*}" "$1"
"""
"""Check that the file $1 has the SHA-256 $2."""

PUT = r"""
umask 077; LC_ALL=C; export LC_ALL
part=$1.part
mkdir -p -- "${1%/*}" "${2%/*}" && cat >"$part" &&
  sum=$(sha256sum <"$part") && [ "${sum%% *}" = "$3" ] && mv -f -- "$part" "$2" && exit 0
rm -f -- "$part"
exit 1
"""
"""Write stdin to $2, through $1.part in the session's folder, if its SHA-256 is $3."""

GET = r"""exec cat -- "$1" """
TAKE = r"""cat -- "$1" && rm -f -- "$1" """
SPACE = r"""df -Pk -- "$1" | tail -n 1 """

AGENT = r"""
umask 077; cd -- "$1" || exit 33; shift
ulimit -c 0 2>/dev/null
TMPDIR=$(pwd) PYTHONDONTWRITEBYTECODE=1 ORT_DISABLE_TELEMETRY=1
export TMPDIR PYTHONDONTWRITEBYTECODE ORT_DISABLE_TELEMETRY
exec "$@"
"""
"""Run a command in the folder $1, also used for temporary files, without core dumps."""


def command_line(script: str, token: str, *parameters: str) -> str:
    """One line for the login shell, whichever it is. Output of the shell's start-up files comes
    before the line `token`."""
    begun = f"printf '%s\\n' {token}\n{script}"
    return shlex.join(["sh", "-c", begun, "edgekd", *parameters])
