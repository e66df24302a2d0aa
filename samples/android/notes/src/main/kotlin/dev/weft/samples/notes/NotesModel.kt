package dev.weft.samples.notes

import dev.weft.Device
import dev.weft.SentenceModel
import dev.weft.WeftException
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Job
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow
import kotlinx.coroutines.flow.update
import kotlinx.coroutines.launch
import kotlinx.coroutines.sync.Mutex
import kotlinx.coroutines.sync.withLock
import java.io.File
import java.util.concurrent.ConcurrentHashMap

/** What the app is doing that takes long, for a progress bar with a button to cancel. */
sealed interface Work {
    /** The model is being opened. */
    data object Opening : Work

    /**
     * Notes are being read.
     *
     * @property done texts done
     * @property all texts altogether
     */
    data class Reading(
        val done: Int,
        val all: Int,
    ) : Work

    /**
     * The classifier is learning.
     *
     * @property done steps done
     * @property all steps altogether
     * @property loss the loss of the last step
     */
    data class Learning(
        val done: Int,
        val all: Int,
        val loss: Float,
    ) : Work
}

/**
 * What the screens show.
 *
 * @property notes all notes
 * @property found what the last search found
 * @property query the last search
 * @property guesses the classifier's guess for each note without a label, by the note's number
 * @property work what is being done
 * @property error what went wrong last, in a sentence
 */
data class NotesState(
    val notes: List<Note> = emptyList(),
    val found: List<Found> = emptyList(),
    val query: String = "",
    val guesses: Map<Long, Guess> = emptyMap(),
    val work: Work? = null,
    val error: String? = null,
)

/**
 * The app without its screens: *find it* by meaning, *teach it* labels. Works in `scope`, one thing at a time, in the order asked;
 * everything stays in `folder`. Screens call its functions, which return at once, and show [state].
 *
 * @param openDevice opens the device to compute on
 * @param modelFolder returns the model's folder, and puts it there first if it is not
 */
class NotesModel(
    private val scope: CoroutineScope,
    private val folder: File,
    private val openDevice: () -> Device,
    private val modelFolder: suspend () -> String,
) : AutoCloseable {
    private class Engine(
        val device: Device,
        val model: SentenceModel,
        val finder: Finder,
        val teacher: Teacher,
    )

    private val changing = MutableStateFlow(NotesState())
    private val mutex = Mutex()
    private val file by lazy { NoteFile(File(folder, "notes.txt")) }
    private var engine: Engine? = null

    /** What is being done and what waits. */
    private val jobs = ConcurrentHashMap.newKeySet<Job>()

    /** What the screens show. */
    val state: StateFlow<NotesState> = changing.asStateFlow()

    /** Shows the notes, opens the model and reads what it has not read. */
    fun start(): Job =
        working {
            showNotes()
            read(engine())
        }

    /** Adds a note. */
    fun add(text: String): Job =
        working {
            file.add(text)
            showNotes()
            read(engine())
        }

    /** Gives a note a label, or takes it away with null. */
    fun label(id: Long, label: String?): Job =
        working {
            file.label(id, label)
            showNotes()
        }

    /** Removes a note. */
    fun remove(id: Long): Job =
        working {
            file.remove(id)
            changing.update { state -> state.copy(found = state.found.filter { it.note.id != id }) }
            showNotes()
        }

    /** Finds notes by what they mean. */
    fun find(query: String): Job =
        working {
            val found = engine().finder.find(query, file.all())
            changing.update { it.copy(found = found, query = query) }
        }

    /** Learns the labels that the user gave. */
    fun learn(): Job =
        working {
            val engine = engine()
            engine.finder.read(file.all(), ::reading)
            val examples = file.all().mapNotNull { note -> note.label?.let { engine.finder.embedding(note) to it } }
            engine.teacher.learn(examples) { done, all, loss -> changing.update { it.copy(work = Work.Learning(done, all, loss)) } }
            guess(engine)
        }

    /** Ends what is being done, soon, and what waits for it. What was learnt before stays. */
    fun cancel(): Unit = jobs.forEach { it.cancel() }

    private fun working(what: suspend () -> Unit): Job =
        scope
            .launch {
                mutex.withLock {
                    changing.update { it.copy(error = null) }
                    try {
                        what()
                    } catch (e: CancellationException) {
                        throw e
                    } catch (e: WeftException) {
                        fail(e)
                    } catch (e: java.io.IOException) {
                        fail(e)
                    } catch (e: IllegalArgumentException) {
                        fail(e)
                    } catch (e: NotesFileException) {
                        fail(e)
                    } catch (e: TooFewLabelsException) {
                        fail(e)
                    } finally {
                        changing.update { it.copy(work = null) }
                    }
                }
            }.also { job ->
                jobs += job
                job.invokeOnCompletion { jobs -= job }
            }

    private fun fail(e: Exception): Unit = changing.update { it.copy(error = e.message ?: e.toString()) }

    private fun showNotes(): Unit = changing.update { it.copy(notes = file.all(), guesses = it.guesses - file.all().labelled()) }

    private fun List<Note>.labelled() = filter { it.label != null }.map { it.id }.toSet()

    private suspend fun engine(): Engine {
        engine?.let { return it }
        changing.update { it.copy(work = Work.Opening) }
        val path = modelFolder()
        val device = openDevice()
        val model =
            try {
                SentenceModel.open(device, path)
            } catch (e: Throwable) {
                device.close()
                throw e
            }
        val teacher = Teacher(device, model.components, folder)
        val made = Engine(device, model, Finder(model, folder), teacher)
        engine = made
        teacher.restore()
        return made
    }

    private suspend fun read(engine: Engine) {
        engine.finder.read(file.all(), ::reading)
        guess(engine)
    }

    private fun reading(done: Int, all: Int): Unit = changing.update { it.copy(work = Work.Reading(done, all)) }

    private fun guess(engine: Engine) {
        val open = file.all().filter { it.label == null }
        val guesses = open.mapNotNull { note -> engine.teacher.guess(engine.finder.embedding(note)).firstOrNull()?.let { note.id to it } }
        changing.update { it.copy(guesses = guesses.toMap()) }
    }

    /** Closes model and device. The scope's jobs must have ended. */
    override fun close() {
        engine?.run {
            teacher.close()
            model.close()
            device.close()
        }
        engine = null
    }
}
