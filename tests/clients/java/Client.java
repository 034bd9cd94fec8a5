// The conversation of ../README.md with java.net.http, the client that Java brings.

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.WebSocket;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.Base64;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

public class Client {
    static final long PATIENCE = 20;

    /** A connection: what comes on it is put into queues. */
    static class Socket implements WebSocket.Listener {
        final BlockingQueue<Object> messages = new LinkedBlockingQueue<>();
        final BlockingQueue<String> pongs = new LinkedBlockingQueue<>();
        final CompletableFuture<Integer> closed = new CompletableFuture<>();
        private final StringBuilder text = new StringBuilder();
        final WebSocket ws;

        Socket(HttpClient client, String url, String protocol) {
            WebSocket.Builder builder = client.newWebSocketBuilder();
            if (protocol != null) {
                builder.subprotocols(protocol);
            }
            ws = builder.buildAsync(URI.create(url), this).join();
        }

        @Override
        public CompletionStage<?> onText(WebSocket ws, CharSequence part, boolean last) {
            text.append(part);
            if (last) {
                messages.add(text.toString());
                text.setLength(0);
            }
            ws.request(1);
            return null;
        }

        @Override
        public CompletionStage<?> onBinary(WebSocket ws, ByteBuffer part, boolean last) {
            byte[] bytes = new byte[part.remaining()];
            part.get(bytes);
            messages.add(bytes);
            ws.request(1);
            return null;
        }

        @Override
        public CompletionStage<?> onPong(WebSocket ws, ByteBuffer payload) {
            pongs.add("pong");
            ws.request(1);
            return null;
        }

        @Override
        public CompletionStage<?> onClose(WebSocket ws, int code, String reason) {
            closed.complete(code);
            return null;
        }

        @Override
        public void onError(WebSocket ws, Throwable error) {
            closed.completeExceptionally(error);
        }

        Object next() throws Exception {
            Object message = messages.poll(PATIENCE, TimeUnit.SECONDS);
            check(message != null, "a message within " + PATIENCE + " s", "none");
            return message;
        }

        void say(String command) {
            ws.sendText(command, true).join();
        }

        /** The next message of this type; it has to hold this. */
        void until(String type, String holding) throws Exception {
            String message;
            do {
                message = (String) next();
                check(!message.contains("\"type\":\"error\""), type, message);
            } while (!message.contains("\"type\":\"" + type + "\""));
            check(message.contains(holding), holding, message);
        }

        int closedWith() throws Exception {
            return closed.get(PATIENCE, TimeUnit.SECONDS);
        }
    }

    static void check(boolean good, Object expected, Object found) {
        if (!good) {
            System.err.println("expected " + expected + ", found " + found);
            System.exit(1);
        }
    }

    public static void main(String[] arguments) throws Exception {
        System.out.println("java.net.http (Java " + System.getProperty("java.version") + ")");
        String base = arguments[0];
        String topic = "clients.java";
        HttpClient client = HttpClient.newHttpClient();

        Socket ws = new Socket(client, base + "/ws", "stentor.v1.json");
        ws.until("hello", "\"version\":1");
        ws.say("{\"op\":\"sub\",\"id\":1,\"topics\":[\"" + topic + "\"]}");
        ws.until("ack", "\"id\":1");
        ws.say("{\"op\":\"pub\",\"topic\":\"" + topic + "\",\"data\":{\"bid\":1.5}}");
        ws.until("update", "\"data\":{\"bid\":1.5}");

        Socket raw = new Socket(client, base + "/raw/" + topic, null);
        raw.say("gr\u00fc\u00dfe");
        check(raw.next().equals("gr\u00fc\u00dfe"), "the text", "another");
        ws.until("update", "\"data\":\"gr\u00fc\u00dfe\"");
        byte[] bytes = {0, -1, 1, 2};
        raw.ws.sendBinary(ByteBuffer.wrap(bytes), true).join();
        check(Arrays.equals((byte[]) raw.next(), bytes), "the bytes", "others");
        ws.until("update", "\"base64\":\"" + Base64.getEncoder().encodeToString(bytes) + "\"");

        ws.ws.sendPing(ByteBuffer.wrap(new byte[] {'?'})).join();
        check(ws.pongs.poll(PATIENCE, TimeUnit.SECONDS) != null, "a pong", "none");
        ws.say("{\"op\":\"ping\",\"id\":\"p\"}");
        ws.until("pong", "\"id\":\"p\"");
        for (int beats = 0; beats < 3; beats++) {
            ws.until("heartbeat", "");
        }

        raw.ws.sendClose(WebSocket.NORMAL_CLOSURE, "").join();
        check(raw.closedWith() == 1000, 1000, raw.closedWith());
        ws.ws.sendBinary(ByteBuffer.wrap(bytes), true).join();
        check(ws.closedWith() == 1003, 1003, ws.closedWith());
        System.exit(0);
    }
}
