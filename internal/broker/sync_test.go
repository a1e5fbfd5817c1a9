package broker

import "testing"

// Sync asks the broker for synchronous writes. That these reach the disk is the
// library's promise; nothing on this side of a power cut shows it.
func TestSyncAsksForSynchronousWrites(t *testing.T) {
	lazy := clusterOptions(EmbeddedConfig{Dir: t.TempDir()})
	sync := clusterOptions(EmbeddedConfig{Dir: t.TempDir(), Sync: true})
	if len(sync) != len(lazy)+1 {
		t.Errorf("%d options with sync, %d without", len(sync), len(lazy))
	}
	e, err := StartEmbedded(EmbeddedConfig{Dir: t.TempDir(), Sync: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}
