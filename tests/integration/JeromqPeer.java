import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.HexFormat;
import org.zeromq.SocketType;
import org.zeromq.ZContext;
import org.zeromq.ZMQ;
import org.zeromq.ZMsg;
import org.zeromq.ZFrame;

/** A socket of jeromq's, steered by lines on the standard input. */
public class JeromqPeer {
    static final HexFormat HEX = HexFormat.of();

    public static void main(String[] args) throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        try (ZContext context = new ZContext()) {
            ZMQ.Socket socket = null;
            for (String line; (line = lines.readLine()) != null;) {
                String[] words = line.split(" ");
                switch (words[0]) {
                case "open":
                    socket = context.createSocket(SocketType.valueOf(words[1]));
                    socket.setLinger(0);
                    break;
                case "close":
                    context.destroySocket(socket);
                    break;
                case "curve_server":
                    socket.setCurveServer(true);
                    break;
                case "curve_publickey":
                    socket.setCurvePublicKey(words[1].getBytes());
                    break;
                case "curve_secretkey":
                    socket.setCurveSecretKey(words[1].getBytes());
                    break;
                case "curve_serverkey":
                    socket.setCurveServerKey(words[1].getBytes());
                    break;
                case "subscribe":
                    socket.subscribe(ZMQ.SUBSCRIPTION_ALL);
                    break;
                case "bind":
                    socket.bind("tcp://127.0.0.1:*");
                    System.out.println(socket.getLastEndpoint());
                    break;
                case "connect":
                    socket.connect(words[1]);
                    break;
                case "send": {
                    ZMsg message = new ZMsg();
                    for (int i = 1; i < words.length; i++)
                        message.add(HEX.parseHex(words[i], 1, words[i].length()));
                    message.send(socket);
                    break;
                }
                case "receive": {
                    ZMsg message = ZMsg.recvMsg(socket);
                    StringBuilder text = new StringBuilder();
                    for (ZFrame frame : message)
                        text.append(" x").append(HEX.formatHex(frame.getData()));
                    System.out.println(text.substring(1));
                    break;
                }
                }
            }
        }
    }
}
