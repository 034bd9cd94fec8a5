# What the scripts here share; each sources it from the project's folder.

step() { printf '\n== %s\n' "$*"; }
skip() { printf 'skipped: %s\n' "$*"; }

# Starts the server $stentor with further flags, on a port of its own; sets server (its process) and address.
# Its log goes to the file named by $log.
start_stentor() {
  local lines line
  exec {lines}< <(exec "$stentor" --listen 127.0.0.1:0 "$@" 2>&1)
  server=$! address=
  : >"$log"
  while [ -z "$address" ] && read -r -t 30 -u "$lines" line; do
    printf '%s\n' "$line" >>"$log"
    case $line in *"listening on http://"*) address=${line#*listening on http://} address=${address%%/*} ;; esac
  done
  cat <&"$lines" >>"$log" &
  exec {lines}<&-
  [ -n "$address" ] || { echo "the server did not start: $(tail -n 1 "$log")" >&2; return 1; }
}

# Ends it as an operator would; what it had to say is in $log.
stop_stentor() {
  [ -n "${server:-}" ] || return 0
  kill "$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
  server=
}
