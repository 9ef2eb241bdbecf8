"""Camera files of every kind, each under its own rules: poses, lenses, names of frames. Data and paths both ask here.

module         what                                                      axes      matrices         order of frames
realestate10k  a line a frame                                            OpenCV    world-to-camera  of the file
nerfstudio     transforms.json, of Blender and instant-ngp too           OpenGL    camera-to-world  of their file names
nerfstudio     camera_path.json of the nerfstudio viewer                 OpenGL    camera-to-world  of the file
colmap         images and cameras, .txt or .bin                          OpenCV    world-to-camera  of their file names
matrices       3x4 or 4x4, in .txt, .json or .npy                        as told   as told          of the file
matrices       lines of TUM: timestamp tx ty tz qx qy qz qw              OpenCV    camera-to-world  of the file

OpenCV: x right, y down, z forward. OpenGL: x right, y up, z backward. All become world-to-camera in OpenCV's axes. File
names are in natural order, frame 2 before frame 10. `archives` unpacks those that come in a ZIP archive.
"""
