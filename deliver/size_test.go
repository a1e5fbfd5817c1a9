package deliver

import (
	"testing"
	"unsafe"
)

// There may be 100,000 lanes and as many targets, most of them at rest.
func TestLanesAreSmall(t *testing.T) {
	t.Parallel()
	if size := unsafe.Sizeof(lane{}); size > 576 { // a size class of the allocator
		t.Errorf("a lane has %d bytes, more than 576", size)
	}
	if size := unsafe.Sizeof(target{}); size > 288 {
		t.Errorf("a target has %d bytes, more than 288", size)
	}
}
