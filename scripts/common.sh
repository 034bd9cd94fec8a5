# What the scripts here share; each sources it from the project's folder.

skip() { printf 'skipped: %s\n' "$*"; }

# Runs a step, and keeps what came of it for `summary`; what it prints as skipped, too. Returns its code.
step() { # NAME, COMMAND …
  local name=$1 begun=$SECONDS code kept
  shift
  kept=$(mktemp)
  printf '\n== %s\n' "$name"
  # In a shell of its own, outside of any condition, so that it ends at its first error.
  set +e
  (set -e; "$@") | tee "$kept"
  code=${PIPESTATUS[0]}
  set -e
  [ "$code" = 0 ] && outcomes+=("passed  $name ($((SECONDS - begun)) s)") || outcomes+=("FAILED  $name")
  mapfile -t -O "${#left_out[@]}" left_out < <(grep '^skipped: ' "$kept")
  rm -f "$kept"
  return "$code"
}
outcomes=() left_out=()

# What the steps came to, one line each.
summary() {
  printf '\n== in all\n'
  [ ${#outcomes[@]} = 0 ] || printf '%s\n' "${outcomes[@]}"
  [ ${#left_out[@]} = 0 ] || printf '%s\n' "${left_out[@]}"
}

# Starts the server $stentor with further flags, on a port of its own; sets server (its process) and address.
# Its log goes to the file named by $log.
start_stentor() {
  local lines line
  # The caller's own settings are none of its business.
  exec {lines}< <(unset "${!STENTOR_@}" && exec "$stentor" --listen 127.0.0.1:0 "$@" 2>&1)
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
