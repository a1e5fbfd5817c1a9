package main

import (
	"fmt"
	"html"
	"math"
	"strconv"
	"strings"
)

// line is one line of a plot, with its points from left to right.
type line struct {
	name   string
	points []point
}

// panel is one plot of a drawing.
type panel struct {
	title, x, y string
	lines       []line
}

// Measures of a drawing, in pixels.
const (
	drawWidth   = 860
	panelHeight = 300
	plotLeft    = 70
	plotRight   = 130 // for the names of the lines
	plotTop     = 50
	plotBottom  = 50
)

func colours() []string { return []string{"#1b6ca8", "#d1495b", "#2e933c", "#8a4fff", "#b36a00"} }

// draw returns an SVG 1.1 picture of the panels below each other.
func draw(title string, panels []panel) string {
	var b strings.Builder
	height := 40 + panelHeight*len(panels)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12" fill="#222">`+"\n",
		drawWidth, height, drawWidth, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", drawWidth, height)
	fmt.Fprintf(&b, `<text x="%d" y="26" font-size="16">%s</text>`+"\n", plotLeft, html.EscapeString(title))
	for i, p := range panels {
		fmt.Fprintf(&b, `<g transform="translate(0,%d)">`+"\n", 40+panelHeight*i)
		p.draw(&b)
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// scale maps values to pixels: [from, to] to [begin, end].
type scale struct{ from, to, begin, end float64 }

func (s scale) at(v float64) float64 {
	return s.begin + (v-s.from)/(s.to-s.from)*(s.end-s.begin)
}

func (p panel) draw(b *strings.Builder) {
	x, y := p.scales()
	fmt.Fprintf(b, `<text x="%d" y="%d" font-size="13">%s</text>`+"\n", plotLeft, plotTop-16, html.EscapeString(p.title))
	fmt.Fprintf(b, `<text x="%.0f" y="%.0f" text-anchor="middle">%s</text>`+"\n", (x.begin+x.end)/2, y.begin+36, html.EscapeString(p.x))
	fmt.Fprintf(b, `<text transform="translate(16,%.0f) rotate(-90)" text-anchor="middle">%s</text>`+"\n", (y.begin+y.end)/2, html.EscapeString(p.y))
	for _, v := range ticks(y.from, y.to) {
		fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#ddd"/>`, x.begin, y.at(v), x.end, y.at(v))
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="end">%s</text>`+"\n", x.begin-6, y.at(v)+4, tickText(v))
	}
	for _, v := range ticks(x.from, x.to) {
		fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#ddd"/>`, x.at(v), y.begin, x.at(v), y.end)
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="middle">%s</text>`+"\n", x.at(v), y.begin+17, tickText(v))
	}
	for i, l := range p.lines {
		colour := colours()[i%len(colours())]
		at := make([]string, 0, len(l.points))
		for _, v := range l.points {
			at = append(at, fmt.Sprintf("%.1f,%.1f", x.at(v.x), y.at(v.y)))
		}
		fmt.Fprintf(b, `<polyline fill="none" stroke="%s" stroke-width="1.5" points="%s"/>`, colour, strings.Join(at, " "))
		fmt.Fprintf(b, `<text x="%.0f" y="%d" fill="%s">%s</text>`+"\n", x.end+10, plotTop+14+18*i, colour, html.EscapeString(l.name))
	}
}

// scales span all points; y begins at 0.
func (p panel) scales() (x, y scale) {
	x = scale{math.Inf(1), math.Inf(-1), plotLeft, drawWidth - plotRight}
	y = scale{0, 0, panelHeight - plotBottom, plotTop}
	for _, l := range p.lines {
		for _, v := range l.points {
			x.from, x.to, y.to = min(x.from, v.x), max(x.to, v.x), max(y.to, v.y)
		}
	}
	if x.from > x.to {
		x.from, x.to = 0, 1
	}
	if x.from == x.to {
		x.to++
	}
	if y.to *= 1.05; y.to == 0 {
		y.to = 1
	}
	return x, y
}

// ticks returns round values between from and to: steps of 1, 2 or 5 times a
// power of ten, four to ten of them.
func ticks(from, to float64) (out []float64) {
	step := math.Pow(10, math.Floor(math.Log10((to-from)/4)))
	for _, factor := range []float64{5, 2} {
		if (to-from)/(step*factor) >= 4 {
			step *= factor
			break
		}
	}
	for i := math.Ceil(from / step); i*step <= to; i++ {
		out = append(out, i*step)
	}
	return out
}

func tickText(v float64) string {
	return strconv.FormatFloat(math.Round(v*1e6)/1e6, 'f', -1, 64)
}
