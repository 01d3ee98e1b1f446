package killswitch

// modesMatter says whether the permission bits of a file say who may read it.
const modesMatter = false
