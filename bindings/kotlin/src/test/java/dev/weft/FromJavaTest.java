package dev.weft;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import org.junit.jupiter.api.Test;

/** The library as Java sees it. */
class FromJavaTest {
    @Test
    void aGraphRunsFromJava() throws Exception {
        try (Device device = Device.cpu();
                Graph graph = Graph.parse("weft 1\ninput x: f32[3]\ny = mul(x, x)\noutput y = y\n");
                CompiledGraph compiled = device.compileAsync(graph).get();
                Session session = compiled.initZeros()) {
            session.set("x", new float[] {1, 2, 3});
            session.step();
            assertArrayEquals(new float[] {1, 4, 9}, session.readFloats("y"));
            session.set("x", TensorBuffer.of(new float[] {3, 2, 1}));
            session.step();
            float[] y = new float[3];
            session.read("y", y);
            assertArrayEquals(new float[] {9, 4, 1}, y);
            assertThrows(WeftException.Length.class, () -> session.set("x", new float[2]));
        }
    }

    @Test
    void aGraphIsBuiltFromJava() throws Exception {
        try (Device device = Device.cpu();
                Graph graph = new Graph()) {
            Value x = graph.input("x", ElementType.F32, 2, 3);
            Value sums = graph.sum(graph.mul(x, x), new long[] {-1});
            assertArrayEquals(new long[] {2}, sums.getShape());
            graph.output("y", sums.times(0.5));
            try (CompiledGraph compiled = device.compileAsync(graph).get();
                    Session session = compiled.initZeros()) {
                session.set("x", new float[] {1, 2, 3, 4, 5, 6});
                session.step();
                assertArrayEquals(new float[] {7, 38.5f}, session.readFloats("y"));
            }
            assertThrows(WeftException.Op.class, () -> graph.matmul(x, x));
        }
    }
}
