package dev.weft.samples.notes.app

import android.app.Application
import androidx.lifecycle.AndroidViewModel
import dev.weft.Device
import dev.weft.samples.notes.ModelFolder
import dev.weft.samples.notes.NotesModel
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.SupervisorJob
import kotlinx.coroutines.cancel
import kotlinx.coroutines.job
import kotlinx.coroutines.launch

/** The app's logic, in a scope that outlives the activity's rotations. The model comes out of the APK's assets, once. */
class NotesViewModel(
    application: Application,
) : AndroidViewModel(application) {
    private val scope = CoroutineScope(SupervisorJob() + Dispatchers.Default)
    private val minilm = ModelFolder(application.noBackupFilesDir.resolve("minilm"), ModelFolder.miniLm)

    val notes =
        NotesModel(
            scope,
            application.filesDir.resolve("notes"),
            openDevice = { Device.open() },
            modelFolder = {
                minilm.install { application.assets.open("minilm/$it") }
                minilm.path
            },
        )

    init {
        notes.start()
    }

    override fun onCleared() {
        val jobs = scope.coroutineContext.job
        scope.cancel()
        // closed when what was cancelled has ended
        CoroutineScope(Dispatchers.Default).launch {
            jobs.join()
            notes.close()
        }
    }
}
