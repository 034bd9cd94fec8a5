// Java-WebSocket with permessage-deflate, which java.net.http doesn't have: clients of one topic that offer it in several ways, and one that doesn't;
// each publishes, and everybody gets the same.

import java.net.URI;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.java_websocket.client.WebSocketClient;
import org.java_websocket.drafts.Draft_6455;
import org.java_websocket.extensions.permessage_deflate.PerMessageDeflateExtension;
import org.java_websocket.handshake.ServerHandshake;

public class Compression {
    static final long PATIENCE = 20;

    static class Client extends WebSocketClient {
        final BlockingQueue<String> messages = new LinkedBlockingQueue<>();
        final String name;
        volatile String agreed = "";

        Client(String url, String name, PerMessageDeflateExtension extension) {
            super(URI.create(url), extension == null ? new Draft_6455() : new Draft_6455(extension));
            this.name = name;
            setConnectionLostTimeout(0);
        }

        @Override
        public void onOpen(ServerHandshake answer) {
            agreed = answer.getFieldValue("Sec-WebSocket-Extensions");
        }

        @Override
        public void onMessage(String message) {
            messages.add(message);
        }

        @Override
        public void onClose(int code, String reason, boolean remote) {
            messages.add("closed with " + code + " " + reason);
        }

        @Override
        public void onError(Exception error) {
            messages.add(error.toString());
        }
    }

    /** An extension that keeps no context, in one direction or both. */
    static PerMessageDeflateExtension alone(boolean server, boolean client) {
        PerMessageDeflateExtension extension = new PerMessageDeflateExtension();
        extension.setServerNoContextTakeover(server);
        extension.setClientNoContextTakeover(client);
        extension.setThreshold(0);
        return extension;
    }

    static List<String> texts(String name) {
        StringBuilder noise = new StringBuilder();
        for (long n = 0; n < 3000; n++) {
            noise.append((char) (33 + (7919 * n * n + name.length()) % 90));
        }
        String quotes = String.join("", Collections.nCopies(20, name + ": {\"bid\":189.21,\"ask\":189.23} gr\u00fc\u00dfe "));
        return List.of(name + ", short", quotes, noise.toString());
    }

    static void check(boolean good, String otherwise) {
        if (!good) {
            System.err.println(otherwise);
            System.exit(1);
        }
    }

    public static void main(String[] arguments) throws Exception {
        System.out.println("Java-WebSocket " + System.getenv("JAVA_WEBSOCKET_VERSION") + ", compression (Java "
            + System.getProperty("java.version") + ")");
        String base = arguments[0];
        String url = base + "/raw/clients.compression.java." + base.substring(0, 3);
        List<Client> clients = new ArrayList<>();
        clients.add(new Client(url, "clear", null));
        clients.add(new Client(url, "both keep nothing", alone(true, true)));
        clients.add(new Client(url, "the client keeps nothing", alone(false, true)));
        clients.add(new Client(url, "the server keeps nothing", alone(true, false)));
        clients.add(new Client(url + "?compress=0", "declined", alone(true, true)));
        for (Client client : clients) {
            check(client.connectBlocking(PATIENCE, TimeUnit.SECONDS), client.name + " can't connect: " + client.messages);
            boolean given = !client.name.equals("clear") && !client.name.equals("declined");
            check(client.agreed.startsWith("permessage-deflate") == given, client.name + " agreed on " + client.agreed);
        }
        for (Client publisher : clients) {
            for (String text : texts(publisher.name)) {
                publisher.send(text);
                for (Client client : clients) {
                    String got = client.messages.poll(PATIENCE, TimeUnit.SECONDS);
                    check(text.equals(got), client.name + " got " + got + " of " + publisher.name);
                }
            }
        }
        for (Client client : clients) {
            client.closeBlocking();
        }
        System.exit(0);
    }
}
