import java.io.ByteArrayOutputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;

/** Uploads a file: java Client.java URL DISH FILE [HEADER VALUE …] */
class Client {
    public static void main(String[] arguments) throws Exception {
        var file = Path.of(arguments[2]);
        var boundary = "----JavaBoundary" + Long.toHexString(System.nanoTime());
        var body = new ByteArrayOutputStream();
        body.write(part(boundary, "name=\"id\"", "text/plain; charset=UTF-8"));
        body.write(arguments[1].getBytes(StandardCharsets.UTF_8));
        var name = file.getFileName().toString();
        body.write("\r\n".getBytes(StandardCharsets.UTF_8));
        body.write(part(boundary, "name=\"picture\"; filename=\"" + name + "\"", "image/jpeg"));
        body.write(Files.readAllBytes(file));
        body.write(("\r\n--" + boundary + "--\r\n").getBytes(StandardCharsets.UTF_8));

        var request = HttpRequest.newBuilder(URI.create(arguments[0]))
            .header("Content-Type", "multipart/form-data; boundary=" + boundary)
            .POST(BodyPublishers.ofByteArray(body.toByteArray()));
        for (var i = 3; i < arguments.length; i += 2) {
            request.header(arguments[i], arguments[i + 1]);
        }
        var answer = HttpClient.newHttpClient().send(request.build(), BodyHandlers.ofByteArray());
        System.out.write(answer.body());
        System.out.print(answer.statusCode());
    }

    static byte[] part(String boundary, String disposition, String type) {
        return ("--" + boundary + "\r\nContent-Disposition: form-data; " + disposition
            + "\r\nContent-Type: " + type + "\r\n\r\n").getBytes(StandardCharsets.UTF_8);
    }
}
