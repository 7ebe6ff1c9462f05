"""Pages for people: what a build, a measurement or a training found, as HTML with drawings."""
