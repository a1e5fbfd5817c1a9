package telemetry

import (
	"bytes"
	"fmt"
	"log"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// However much libraries write, a line a second comes through, cut to a bound, with
// how many did not.
func TestLibrariesCannotFloodTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		logger, err := NewLogger(LogConfig{Output: &out})
		if err != nil {
			t.Fatal(err)
		}
		library := log.New(&stdlog{logger: logger}, "", 0)
		for _, text := range []string{"first", strings.Repeat("x", 10_000), "last"} {
			for range 1000 {
				library.Print(text)
			}
			<-time.After(time.Second)
		}
		for i, want := range []string{"first", strings.Repeat("x", 500), "last"} {
			line, err := out.ReadString('\n')
			if wanted := fmt.Sprintf(`"message":%q,"dropped":%d}`, want, min(i, 1)*999); err != nil || !strings.Contains(line, wanted) {
				t.Errorf("%.700q, %v: want %q in it", line, err, wanted)
			}
		}
		if out.Len() > 0 {
			t.Errorf("more lines: %.200q", &out)
		}
	})
}
