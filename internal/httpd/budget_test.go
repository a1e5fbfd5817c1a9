package httpd

import "testing"

func TestBudget(t *testing.T) {
	b := &budget{max: 100}
	steps := []struct {
		name  string
		n     int
		large bool
		want  bool
	}{
		{"a large one", 70, true, true},
		{"another large one", 6, true, false},
		{"large, to the brim of its part", 5, true, true},
		{"small, from the part that is kept", 25, false, true},
		{"one byte more", 1, false, false},
		{"nothing", 0, false, true},
	}
	for _, s := range steps {
		if got := b.take(s.n, s.large); got != s.want {
			t.Errorf("%s: %t, want %t with %d used", s.name, got, s.want, b.used)
		}
	}
	b.give(100)
	if b.used != 0 || !b.take(100, false) {
		t.Errorf("%d used after all was given back", b.used)
	}
}
