# shellcheck shell=bash
# What scripts here say to the server at $address, in plain bash; each sources it from the project's folder.

# Opens a connection; its descriptor is in $fd.
# shellcheck disable=SC2154 # start_stentor sets address
dial() { exec {fd}<>"/dev/tcp/${address%:*}/${address##*:}"; }

# A figure of /metrics, without its stentor_, summed over its labels.
figure() {
  local fd
  dial
  printf 'GET /metrics HTTP/1.0\r\n\r\n' >&"$fd"
  awk -v name="stentor_$1" '{ sub(/\r$/, "") } $1 ~ "^" name "([{]|$)" { sum += $2; found = 1 } END { if (!found) exit 1; print sum + 0 }' <&"$fd" ||
    { echo "the server has no figure called $1" >&2; return 1; }
  exec {fd}<&-
}

# Publishes lines as POST /publish takes them.
publish_lines() {
  local fd
  dial
  printf 'POST /publish HTTP/1.0\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s\n' "$((${#1} + 1))" "$1" >&"$fd"
  grep -q '"published":' <&"$fd" || { echo "the server did not take what was published" >&2; return 1; }
  exec {fd}<&-
}

# Asks for a WebSocket on this path, over $fd.
ask_for_websocket() {
  printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n' "$1" >&"$fd"
  printf 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n' >&"$fd"
}

# Descriptors that the server has open, and its memory in use in KiB.
# shellcheck disable=SC2154 # start_stentor sets server
descriptors() { find "/proc/$server/fd" -mindepth 1 | wc -l; }
resident() { awk '/^VmRSS:/ { print $2 }' "/proc/$server/status"; }
