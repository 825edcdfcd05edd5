package sdk

// Dependencies is what a build says that it is made of.
var Dependencies = dependencies

var ReadBounded = readBounded
