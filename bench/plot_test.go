package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// wellFormed returns how many elements of each kind a drawing has.
func wellFormed(t *testing.T, text string) map[string]int {
	t.Helper()
	seen := map[string]int{}
	in := xml.NewDecoder(strings.NewReader(text))
	for {
		token, err := in.Token()
		if errors.Is(err, io.EOF) {
			return seen
		}
		if err != nil {
			t.Fatalf("drawing: %v\n%s", err, text)
		}
		if start, ok := token.(xml.StartElement); ok {
			seen[start.Name.Local]++
		}
	}
}

func TestDraw(t *testing.T) {
	text := draw("a < b & c", []panel{
		{title: "two", x: "s", y: "ms", lines: []line{{"<one>", []point{{0, 1}, {1, 5}, {2, 2}}}, {"other", []point{{0.5, 3}}}}},
		{title: "nothing"},
	})
	if seen := wellFormed(t, text); seen["svg"] != 1 || seen["g"] != 2 || seen["polyline"] != 2 {
		t.Errorf("elements: %v", seen)
	}
	if want := `points="70.0,211.9 400.0,59.5 730.0,173.8"`; !strings.Contains(text, want) {
		t.Errorf("no line %s in\n%s", want, text)
	}
}

// Every point is inside its plot.
func TestPointsAreInside(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p panel
		for range rapid.IntRange(0, 3).Draw(t, "lines") {
			var l line
			for range rapid.IntRange(0, 5).Draw(t, "points") {
				l.points = append(l.points, point{rapid.Float64Range(-1e3, 1e6).Draw(t, "x"), rapid.Float64Range(0, 1e6).Draw(t, "y")})
			}
			p.lines = append(p.lines, l)
		}
		x, y := p.scales()
		for _, l := range p.lines {
			for _, v := range l.points {
				if got := x.at(v.x); got < x.begin-1e-6 || got > x.end+1e-6 {
					t.Fatalf("x %g is at %g", v.x, got)
				}
				if got := y.at(v.y); got > y.begin || got < y.end {
					t.Fatalf("y %g is at %g", v.y, got)
				}
			}
		}
	})
}

func TestTicks(t *testing.T) {
	for _, row := range []struct {
		from, to float64
		want     []float64
	}{
		{0, 10, []float64{0, 2, 4, 6, 8, 10}},
		{0, 4, []float64{0, 1, 2, 3, 4}},
		{-3, 250, []float64{0, 50, 100, 150, 200, 250}},
		{0, 0.5, []float64{0, 0.1, 0.2, 0.3, 0.4, 0.5}},
	} {
		if diff := cmp.Diff(row.want, ticks(row.from, row.to), approx()); diff != "" {
			t.Errorf("%g to %g (-want +got):\n%s", row.from, row.to, diff)
		}
	}
}

func TestCurvesAreWritten(t *testing.T) {
	c := newCurves()
	c.addIsolation(kafka, 20, false, []point{{1, 2}})
	c.addIsolation(kafka, 20, true, []point{{1, 3}})
	c.addIsolation(kafka, 50, true, []point{{1, 4}})
	dir := filepath.Join(t.TempDir(), "plots")
	if err := c.write(dir+"/", []string{embedded, kafka}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "isolation.svg"))
	if err != nil {
		t.Fatal(err)
	}
	if seen := wellFormed(t, string(text)); seen["g"] != 1 || seen["polyline"] != 3 {
		t.Errorf("elements: %v", seen)
	}
	if _, err := os.Stat(filepath.Join(dir, "recovery.svg")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a plot of what did not run: %v", err)
	}
}
