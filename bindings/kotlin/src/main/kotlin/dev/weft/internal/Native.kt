package dev.weft.internal

import dev.weft.Progress
import dev.weft.WeftException
import dev.weft.internal.bindings.NativeCancel
import dev.weft.internal.bindings.ProgressListener
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.awaitCancellation
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.ensureActive
import kotlinx.coroutines.launch
import kotlinx.coroutines.withContext
import java.util.concurrent.atomic.AtomicReference
import kotlin.coroutines.CoroutineContext
import dev.weft.internal.bindings.WeftException as NativeFailure

/** Calls the control plane; its errors become ours. */
internal inline fun <T> native(call: () -> T): T =
    try {
        NativeLibrary.load()
        call()
    } catch (e: NativeFailure.Failed) {
        val d = e.details
        throw WeftException.of(d.code, d.message, d.wanted, d.came, d.node)
    }

/**
 * Frees an object of the table; does nothing for one that was closed before. Uniffi's object over it, some bytes, stays until it
 * is collected: passed to a function after it was destroyed, it would be used after free, while the table refuses its handle.
 */
internal inline fun closing(free: () -> Unit): Unit = native(free)

/** Where what takes long runs. */
internal val working: CoroutineContext get() = Dispatchers.Default

/**
 * Runs `work` on a thread for it. If the coroutine is cancelled meanwhile, the native work is asked to end; this returns when it
 * has ended.
 */
internal suspend fun <T> cancellable(work: suspend CoroutineScope.(NativeCancel) -> T): T =
    coroutineScope {
        val cancel = native { NativeCancel() }
        // unconfined: the request is made on the thread that cancels, whoever else is busy
        val watcher =
            launch(Dispatchers.Unconfined) {
                try {
                    awaitCancellation()
                } finally {
                    cancel.request()
                }
            }
        try {
            withContext(working) { work(cancel) }
        } catch (e: WeftException.Cancelled) {
            // what was cancelled through the coroutine ends as coroutines do
            ensureActive()
            throw e
        } finally {
            watcher.cancel()
            closing(cancel::release)
        }
    }

/**
 * As [cancellable], for work that tells how far it is. What `onProgress` throws ends the work, and is thrown here: it must not
 * unwind through native code.
 */
internal suspend fun <T : AutoCloseable> reporting(
    onProgress: (Progress) -> Unit,
    work: (NativeCancel, ProgressListener) -> T,
): T =
    cancellable { cancel ->
        val thrown = AtomicReference<Throwable?>()
        val listener =
            object : ProgressListener {
                override fun progress(done: Long, all: Long) {
                    try {
                        if (thrown.get() == null) onProgress(Progress(done, all))
                    } catch (e: Throwable) {
                        thrown.set(e)
                        cancel.request()
                    }
                }
            }
        val made =
            try {
                work(cancel, listener)
            } catch (e: WeftException.Cancelled) {
                throw thrown.get() ?: e
            }
        thrown.get()?.let {
            made.close()
            throw it
        }
        made
    }
