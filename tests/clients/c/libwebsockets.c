/* The conversation of ../README.md with libwebsockets: one thread, whose loop runs whenever something is waited for. */

#include <libwebsockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATIENCE_S = 20, ROOM = 4096 };

/* A connection: the message that has come, and the one that is to go. */
struct socket {
	struct lws *wsi;
	int open, failed, closed, code, pongs;
	char in[ROOM];
	size_t in_len;
	int in_whole, in_binary, in_read;
	unsigned char out[LWS_PRE + ROOM];
	size_t out_len;
	enum lws_write_protocol out_kind;
	int out_sent, leaves;
};

static struct lws_context *context;
static struct socket json, raw;
static int tls;

static void fail(const char *expected, const char *found)
{
	fprintf(stderr, "expected %s, found %s\n", expected, found);
	exit(1);
}

static int on_event(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t len)
{
	struct socket *s = lws_get_opaque_user_data(wsi);
	(void)user;
	switch (reason) {
	case LWS_CALLBACK_CLIENT_ESTABLISHED:
		s->open = 1;
		break;
	case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
		s->failed = 1;
		break;
	case LWS_CALLBACK_CLIENT_RECEIVE:
		if (lws_is_first_fragment(wsi))
			s->in_len = 0;
		if (s->in_len + len >= ROOM)
			fail("a message of at most 4 KiB", "a longer one");
		memcpy(s->in + s->in_len, in, len);
		s->in_len += len;
		s->in[s->in_len] = 0;
		s->in_binary = lws_frame_is_binary(wsi);
		s->in_whole = lws_is_final_fragment(wsi);
		/* One at a time: the next is left to the kernel until this one was looked at. */
		if (s->in_whole)
			lws_rx_flow_control(wsi, 0);
		break;
	case LWS_CALLBACK_CLIENT_RECEIVE_PONG:
		s->pongs++;
		break;
	case LWS_CALLBACK_CLIENT_WRITEABLE:
		if (s->leaves) {
			lws_close_reason(wsi, LWS_CLOSE_STATUS_NORMAL, NULL, 0);
			return -1;
		}
		if (!s->out_sent) {
			if (lws_write(wsi, s->out + LWS_PRE, s->out_len, s->out_kind) < (int)s->out_len)
				fail("a message sent", "less of it");
			s->out_sent = 1;
		}
		break;
	case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE:
		if (len >= 2)
			s->code = ((unsigned char *)in)[0] << 8 | ((unsigned char *)in)[1];
		break;
	case LWS_CALLBACK_CLIENT_CLOSED:
		s->closed = 1;
		break;
	default:
		break;
	}
	return 0;
}

static const struct lws_protocols protocols[] = {
	{ .name = "stentor.v1.json", .callback = on_event, .rx_buffer_size = ROOM },
	{ 0 },
};

/* Runs the loop until *what is set; the alarm ends what takes too long. */
static void wait_for(const int *what, const struct socket *s, const char *name)
{
	while (!*what) {
		if (s->failed)
			fail(name, "a refused connection");
		lws_service(context, 0);
	}
}

static void dial(struct socket *s, char *address, const char *path, const char *protocol)
{
	char *colon = strrchr(address, ':');
	char host[64];
	struct lws_client_connect_info info = { 0 };

	snprintf(host, sizeof host, "%.*s", (int)(colon - address), address);
	info.context = context;
	info.address = host;
	info.port = atoi(colon + 1);
	info.path = path;
	info.ssl_connection = tls ? LCCSCF_USE_SSL : 0;
	info.host = address;
	info.protocol = protocol;
	info.local_protocol_name = protocols[0].name;
	info.opaque_user_data = s;
	s->wsi = lws_client_connect_via_info(&info);
	if (!s->wsi)
		fail("a connection", "none");
	wait_for(&s->open, s, path);
}

static void send_message(struct socket *s, const void *data, size_t len, enum lws_write_protocol kind)
{
	memcpy(s->out + LWS_PRE, data, len);
	s->out_len = len;
	s->out_kind = kind;
	s->out_sent = 0;
	lws_callback_on_writable(s->wsi);
	wait_for(&s->out_sent, s, "room to send");
}

static void say(struct socket *s, const char *text)
{
	send_message(s, text, strlen(text), LWS_WRITE_TEXT);
}

/* Goes on reading behind a message that was looked at. */
static void read_on(struct socket *s)
{
	if (s->in_whole && s->in_read) {
		s->in_whole = s->in_read = 0;
		lws_rx_flow_control(s->wsi, 1);
	}
}

/* The next message, into s->in; what was there is gone. */
static void next(struct socket *s)
{
	read_on(s);
	wait_for(&s->in_whole, s, "a message");
	s->in_read = 1;
}

/* The next message of this type; it has to hold this. */
static void until(struct socket *s, const char *type, const char *holding)
{
	char field[64];
	snprintf(field, sizeof field, "\"type\":\"%s\"", type);
	do {
		next(s);
		if (strstr(s->in, "\"type\":\"error\""))
			fail(type, s->in);
	} while (!strstr(s->in, field));
	if (!strstr(s->in, holding))
		fail(holding, s->in);
}

int main(int count, char **arguments)
{
	static const unsigned char bytes[] = { 0, 255, 1, 2 };
	struct lws_context_creation_info info = { 0 };
	char *address;
	int beats;

	if (count != 2)
		fail("ws://HOST:PORT or wss://HOST:PORT", "no address");
	tls = strncmp(arguments[1], "wss://", 6) == 0;
	address = strstr(arguments[1], "//") + 2;
	alarm(PATIENCE_S);
	printf("libwebsockets %.*s (C)\n", (int)strcspn(lws_get_library_version(), "-"), lws_get_library_version());
	fflush(stdout);
	lws_set_log_level(LLL_ERR, NULL);
	info.port = CONTEXT_PORT_NO_LISTEN;
	info.protocols = protocols;
	if (tls) {
		info.options = LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT;
		info.client_ssl_ca_filepath = getenv("SSL_CERT_FILE");
	}
	context = lws_create_context(&info);
	if (!context)
		fail("a context", "none");

	json.out_sent = raw.out_sent = 1;
	dial(&json, address, "/ws", protocols[0].name);
	until(&json, "hello", "\"version\":1");
	say(&json, "{\"op\":\"sub\",\"id\":1,\"topics\":[\"clients.c\"]}");
	until(&json, "ack", "\"id\":1");
	say(&json, "{\"op\":\"pub\",\"topic\":\"clients.c\",\"data\":{\"bid\":1.5}}");
	until(&json, "update", "\"data\":{\"bid\":1.5}");

	dial(&raw, address, "/raw/clients.c", NULL);
	say(&raw, "gr\u00fc\u00dfe");
	next(&raw);
	if (raw.in_binary || strcmp(raw.in, "gr\u00fc\u00dfe"))
		fail("the text", raw.in);
	until(&json, "update", "\"data\":\"gr\u00fc\u00dfe\"");
	send_message(&raw, bytes, sizeof bytes, LWS_WRITE_BINARY);
	next(&raw);
	if (!raw.in_binary || raw.in_len != sizeof bytes || memcmp(raw.in, bytes, sizeof bytes))
		fail("the bytes", "others");
	until(&json, "update", "\"base64\":\"AP8BAg==\"");

	/* Nothing more is expected there but pings, which are read only where reading goes on. */
	read_on(&raw);
	send_message(&raw, "?", 1, LWS_WRITE_PING);
	wait_for(&raw.pongs, &raw, "a pong");
	say(&json, "{\"op\":\"ping\",\"id\":\"p\"}");
	until(&json, "pong", "\"id\":\"p\"");
	for (beats = 0; beats < 3; beats++)
		until(&json, "heartbeat", "");

	raw.leaves = 1;
	lws_callback_on_writable(raw.wsi);
	wait_for(&raw.closed, &raw, "an end");
	send_message(&json, bytes, sizeof bytes, LWS_WRITE_BINARY);
	read_on(&json);
	wait_for(&json.closed, &json, "an end");
	if (json.code != 1003)
		fail("the code 1003", "another");
	lws_context_destroy(context);
	return 0;
}
