"""Multi-view sets -> a network from image to mesh, and the files of its meshes:
`training inverse-graphics` and `training shapes`."""
