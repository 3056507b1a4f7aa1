package rootfs

import "path/filepath"

// EtcUpper is where the local changes to a persistent /etc lie: the upper directory of the layer that EtcLayerOf knows, in
// a directory of record.
func EtcUpper(stateDir string) string { return filepath.Join(stateDir, etcName, upperName) }
