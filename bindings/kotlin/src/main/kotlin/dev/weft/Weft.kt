package dev.weft

import dev.weft.internal.NativeLibrary
import dev.weft.internal.bindings.LogHook
import dev.weft.internal.bindings.optimizerNames
import dev.weft.internal.bindings.setLog
import dev.weft.internal.native
import dev.weft.internal.bindings.LogLevel as NativeLevel
import dev.weft.internal.bindings.devices as nativeDevices

/** How much a line of the log matters. */
public enum class LogLevel {
    /** Something is lost: for example a device that no longer responds. */
    ERROR,

    /** An anomaly that was handled. */
    WARN,

    /** Major events: devices opened, graphs compiled. */
    INFO,

    /** Details. */
    DEBUG,
}

/** Gets lines of the log. */
public fun interface LogListener {
    /** A line, on the thread where it happened: any. What it throws goes to the thread's handler of uncaught exceptions. */
    public fun line(level: LogLevel, text: String)
}

/** The library as a whole. */
public object Weft {
    /** The version of this library. */
    public const val VERSION: String = NativeLibrary.VERSION

    /**
     * Loads the native library, which the first use of it does otherwise.
     *
     * @throws WeftException.Library if it cannot be loaded, or is of another version
     */
    @JvmStatic
    public fun load(): Unit = NativeLibrary.load()

    /** The devices of this machine: the CPU, then the GPUs, the best first. */
    @JvmStatic
    public fun devices(): List<DeviceInfo> = native { nativeDevices().map(DeviceInfo::of) }

    /** The names of all optimizers. */
    @JvmStatic
    public fun optimizers(): List<String> = native { optimizerNames() }

    /** Sends lines up to `level` to `listener` from now on, in the whole process. */
    @JvmStatic
    public fun log(level: LogLevel, listener: LogListener) {
        val hook =
            object : LogHook {
                override fun line(level: NativeLevel, text: String) {
                    try {
                        listener.line(LogLevel.entries[level.ordinal], text)
                    } catch (e: Throwable) {
                        // it must not unwind through native code
                        val thread = Thread.currentThread()
                        thread.uncaughtExceptionHandler.uncaughtException(thread, e)
                    }
                }
            }
        native { setLog(NativeLevel.entries[level.ordinal], hook) }
    }

    /** Ends what [log] began. */
    @JvmStatic
    public fun stopLog(): Unit = native { setLog(NativeLevel.ERROR, null) }
}
