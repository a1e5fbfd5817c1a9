package deliver

import (
	"fmt"
	"testing"
)

// Readiness names a few of many losses, and each of them once.
func TestLossesAreBounded(t *testing.T) {
	var l losses
	for range 3 {
		for i := range 100 {
			l.note(fmt.Sprintf("deliveries/%02d", i), fmt.Sprintf("lost in %02d", i))
		}
	}
	if want := "lost in 00; lost in 01; lost in 02; lost in 03; lost in 04; and 95 more; " + lossEnds; l.err().Error() != want {
		t.Errorf("%s, want %s", l.err(), want)
	}
}
