// What Apple's systems tell an app, for `LifeCycle`. Linux, where the tests run, has none of it: this file is thin for that reason.

import Foundation

#if canImport(UIKit) && !os(watchOS)
    import UIKit
#endif

#if canImport(Darwin)
    /// The notices of Apple's systems:
    ///
    /// - UIApplication (iOS, tvOS, visionOS, Mac Catalyst): background, foreground, memory warnings. A Mac's apps may use the GPU in the
    ///   background, and NSApplication has no such notice: there, memory pressure comes from Dispatch.
    /// - ProcessInfo: thermal state, from `serious` on, and Low Power Mode.
    ///
    /// Notices are handled on the thread that posts them: the system takes an app to be done with the GPU when the handlers of
    /// `didEnterBackgroundNotification` have returned.
    struct AppleNotices: NoticeSource {
        func begin(_ tell: @escaping @Sendable (SystemNotice) -> Void) {
            let center = NotificationCenter.default
            @Sendable func heat() {
                let state = ProcessInfo.processInfo.thermalState
                tell(.hot(state == .serious || state == .critical))
            }
            @Sendable func power() {
                tell(.lowPower(ProcessInfo.processInfo.isLowPowerModeEnabled))
            }
            // observers stay for the process's life, and so nobody keeps their tokens
            _ = center.addObserver(
                forName: ProcessInfo.thermalStateDidChangeNotification, object: nil, queue: nil
            ) { _ in heat() }
            _ = center.addObserver(forName: .NSProcessInfoPowerStateDidChange, object: nil, queue: nil) { _ in power() }
            heat()
            power()
            #if canImport(UIKit) && !os(watchOS)
                // some SDKs have these names on the main actor
                Task { @MainActor in
                    let notices: [(Notification.Name, SystemNotice)] = [
                        (UIApplication.didEnterBackgroundNotification, .background),
                        (UIApplication.willEnterForegroundNotification, .foreground),
                        (UIApplication.didReceiveMemoryWarningNotification, .memoryWarning),
                    ]
                    for (name, notice) in notices {
                        _ = NotificationCenter.default.addObserver(forName: name, object: nil, queue: nil) { _ in
                            tell(notice)
                        }
                    }
                }
            #else
                let pressure = DispatchSource.makeMemoryPressureSource(
                    eventMask: [.warning, .critical], queue: .global())
                pressure.setEventHandler { tell(.memoryWarning) }
                pressure.activate()
                AppleNotices.pressure.with { $0 = pressure }
            #endif
        }

        #if !(canImport(UIKit) && !os(watchOS))
            /// It tells nothing more once nobody keeps it.
            private static let pressure = Guarded<(any DispatchSourceMemoryPressure)?>(nil)
        #endif
    }
#endif

extension LifeCycle {
    /// Lets ``shared`` hear the system's notices, from the first use on.
    static let hearsTheSystem: Void = {
        #if canImport(Darwin)
            shared.follow(AppleNotices())
        #endif
    }()
}
